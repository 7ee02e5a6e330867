"""Executors: the same results whoever works, and what goes wrong is told."""

import json
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builds import at
from conftest import UNIT_BYTES
from sqzb.corpus import executors
from sqzb.corpus.executors import run
from sqzb.corpus.store import Corpus, read_manifest
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, dump_recipe


def results(executor: str, workers: int, function: Any, tasks: list[tuple[Any, ...]]) -> list[Any]:
    """By number of the task; each comes once."""
    found = [result for result in run(executor, workers, function, tasks) if result is not None]
    assert sorted(number for number, _ in found) == list(range(len(tasks)))
    return [value for _, value in sorted(found)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_has_its_result(workers: int) -> None:
    tasks = [(number, number + 1) for number in range(7)]
    assert results("processes", workers, operator.mul, tasks) == [a * b for a, b in tasks]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_tasks_have_no_results(workers: int) -> None:
    assert results("processes", workers, operator.mul, []) == []


def test_while_tasks_run_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.05)
    found = list(run("processes", 2, time.sleep, [(0.5,), (0.5,)]))
    assert found.count(None) >= 4 and sorted(result for result in found if result) == [
        (0, None),
        (1, None),
    ]
    assert found[-1] is not None


@pytest.mark.parametrize(("workers", "begun"), [(1, 0), (2, 2)])
def test_after_an_error_no_task_is_begun(tmp_path: Path, workers: int, begun: int) -> None:
    tasks = [(), *((f"mkdir {tmp_path}/{n}; sleep 0.3",) for n in range(1, 12))]
    with pytest.raises(TypeError):
        list(run("processes", workers, os.system, tasks))
    # The other worker may have been at one task, and have taken one more while the error came.
    assert len(list(tmp_path.iterdir())) <= begun


def test_what_a_user_can_mend_comes_through(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Prepare it with"):
        list(run("processes", 2, read_manifest, [(tmp_path,)]))


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(UserError, match=r"killed.*fewer than 2 --workers"):
        list(run("processes", 2, signal.raise_signal, [(signal.SIGKILL,)]))


def test_leaving_early_leaves_no_worker_behind(tmp_path: Path) -> None:
    going = run("processes", 2, os.mkdir, [(tmp_path / str(n),) for n in range(12)])
    next(going)
    going.close()  # type: ignore[attr-defined]
    begun = len(list(tmp_path.iterdir()))
    assert begun <= 4
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == begun


# In a process of its own: Ray leaves threads and settings behind, and a token in the home folder.
RAY = """
import json, sys, time
from pathlib import Path
import ray
from sqzb.corpus import executors, sources
from sqzb.corpus.build import build
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, load_recipe

def work(number):
    if number < 0:
        raise UserError(f"mend {number}")
    if number == 99:
        time.sleep(0.5)
    return number * number

def found(*numbers):
    return list(executors.run("ray", 1, work, [(number,) for number in numbers]))

executors.LOOK_SECONDS = 0.05
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
try:
    told = {"squares": found(0, 1, 2, 3, 99)}
    try:
        found(-1, 5)
    except UserError as error:
        told["error"] = str(error)
    sources.UNIT_BYTES = int(sys.argv[2])
    build(load_recipe(CorpusRecipe, Path(sys.argv[1])), 2, "ray")
finally:
    ray.shutdown()
print(json.dumps(told))
"""


def test_ray_gives_the_same(
    tmp_path: Path,
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    content: Callable[[Path], dict[str, bytes]],
) -> None:
    """The same results and errors, and the same corpus: one start of Ray, which takes
    seconds, shows both.
    """
    pytest.importorskip("ray")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(at(corpus_recipe, tmp_path / "corpus")))
    # A machine with other work needs longer than Ray's half a minute.
    settings = {
        "HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "200",
    }
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | settings
    ended = subprocess.run(
        [sys.executable, "-c", RAY, str(tmp_path / "recipe.yaml"), str(UNIT_BYTES)],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    squares = [result for result in told["squares"] if result is not None]
    assert sorted(squares) == [[0, 0], [1, 1], [2, 4], [3, 9], [4, 9801]]
    assert told["squares"].count(None) >= 4
    assert told["error"] == "mend -1"
    assert content(tmp_path / "corpus") == content(corpus.folder)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sqzb\[ray\]'"):
        list(run("ray", 1, operator.mul, [(1, 2)]))
