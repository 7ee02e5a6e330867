"""What pytest does around the tests, and the text that test files share.

The fixtures of all test files are in shared_fixtures.py.
"""

import gc
import os
import signal
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ.setdefault(
    "TRITON_INTERPRET", "1"
)  # read when Triton is first imported, by whatever test or library

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background; processes started here need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import numpy as np
import pytest

import fork_server
from examples import SUITE

# The same examples in every run; `make soak` has ten times as many, and others each time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=SUITE)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=10 * SUITE)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)

TEXT = """
the of and in to was with for water river stone winter light garden engine letter copper window
morning silver forest paper harbour bridge music village history method number reason travel answer
children language science
"""
WORDS = TEXT.split()
UNIT_BYTES = 25_000


def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of hypothesis, and load the fixtures, and torch with them.

    With workers, the process that hands out the tests runs none, and without torch they begin
    seconds sooner.
    """
    hypothesis.settings.load_profile("suite")  # --hypothesis-profile comes later
    if getattr(config.option, "dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """One fork server for all workers, which begins while they collect the tests.

    It and the workers shall have one environment. readline, which pytest imports, has set these
    variables for the processes that are started from here, but not in `os.environ`.
    """
    for name in {"LINES", "COLUMNS"} - os.environ.keys():
        os.unsetenv(name)
    fork_server.begin()


def pytest_collection_finish() -> None:
    """Keep the garbage collector from the million objects that torch and the tests are made of.

    They live as long as the process. Each full collection would look at all of them, for half a
    second.
    """
    gc.freeze()


def prose(documents: int, seed: int) -> list[str]:
    """Documents of plain sentences in paragraphs; the words come with very different
    frequencies.
    """
    return list(_prose(documents, seed))


@cache
def _prose(documents: int, seed: int) -> tuple[str, ...]:
    draw = np.random.default_rng(seed)
    words = np.array(WORDS)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    weights /= weights.sum()
    made = []
    for _ in range(documents):
        lengths = draw.integers(2, 12, draw.integers(3, 25))
        said = [" ".join(draw.choice(words, n, p=weights)).capitalize() + "." for n in lengths]
        cut = int(draw.integers(1, len(said)))
        made.append(" ".join(said[:cut]) + "\n\n" + " ".join(said[cut:]))
    return tuple(made)
