"""pretrain and finetune as processes that are killed again and again: they end as if nothing had
happened.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fork_server
from sqzb.corpus.store import TRAIN, Corpus
from sqzb.files import ASIDE
from stopped_runs import lines, write_task

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
KILLS = int(os.environ.get("SQZB_KILLS", "3"))
RECIPE = """
corpus: {corpus}
sequence_length: 16
max_predictions: 3
model: {{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 32}}
steps: 40
global_batch: 48
micro_batch: 24
log_every: 1
evaluate_every: 15
evaluate_sequences: 32
checkpoint_every: 10
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A folder with the recipe, the task, and both runs undisturbed."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "recipe.yaml").write_text(RECIPE.format(corpus=corpus.folder))
    write_task(folder, 60)
    for command in COMMANDS:
        # All have the fork server's seed for hashes. The golden test's Pythons have their own.
        assert start(folder, command, "whole").wait(120) == 0
    # so that moments lie in epochs and between them
    assert 3 * len(corpus.split(TRAIN, 16)) < 40 * 48
    return folder


COMMANDS = ("pretrain", "phase2", "finetune")


def arguments(command: str, output: str) -> list[str]:
    own = {
        "pretrain": ["pretrain", "recipe.yaml"],
        "phase2": ["pretrain", "recipe.yaml", *PHASE2],
        "finetune": [
            "finetune",
            "--task",
            "mrpc",
            "--model",
            "pretrain-whole",
            "--glue-dir",
            ".",
            *FINETUNE,
        ],
    }
    return ["-m", "sqzb", *own[command], "--output", f"{command}-{output}", "--resume", "auto"]


def start(folder: Path, command: str, output: str) -> fork_server.Popen:
    return fork_server.Popen(
        [sys.executable, *arguments(command, output)],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


BEST = ("evaluate_every=6", "keep_best=true")
PHASE2 = (
    "model=null",
    "start_from=pretrain-whole",
    "sequence_length=32",
    "max_predictions=5",
    "steps=30",
    "optimizer.name=muon",
    "averaging.share=0.5",
)
FINETUNE = (
    "epochs=6",
    "batch=8",
    "max_length=16",
    "log_every=1",
    "checkpoint_every=7",
    "lr=1e-3",
    *BEST,
)


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def begin(place: Path) -> Iterator[Callable[[str, str], fork_server.Popen]]:
    begun: list[fork_server.Popen] = []

    def run(command: str, output: str) -> fork_server.Popen:
        begun.append(start(place, command, output))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.wait()


def same(folder: Path, whole: Path) -> None:
    assert lines(folder) == lines(whole)
    for path in [
        *(whole / "final").glob("*.safetensors"),
        *whole.glob("checkpoints/*/*.safetensors"),
    ]:
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes(), path.name


def wait_for_steps(process: fork_server.Popen, folder: Path, more: int) -> None:
    """Until so many lines more are written, or the run is over."""
    before = len(lines(folder))
    while process.poll() is None and len(lines(folder)) < before + more:
        time.sleep(0.01)


def test_killed_at_random_moments_it_ends_in_the_same_weights(
    place: Path, command: str, begin: Callable[[str, str], fork_server.Popen]
) -> None:
    draw = random.Random(os.environ.get("SQZB_SEED", "0"))
    folder, whole = place / f"{command}-killed", place / f"{command}-whole"
    kills = in_a_save = 0
    due = KILLS if command == "pretrain" else max(1, KILLS // 2)
    while kills < due:
        process = begin(command, "killed")
        wait_for_steps(process, folder, draw.randrange(1, 25))
        time.sleep(draw.random() * 0.05)  # anywhere in a step, a save or an evaluation
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
            in_a_save += bool(list(folder.glob(f"checkpoints/*{ASIDE}")))
        else:  # it was over sooner: once more from the beginning
            same(folder, whole)
            shutil.rmtree(folder)
    process = begin(command, "killed")
    assert process.wait(120) == 0, process.stderr and process.stderr.read()
    same(folder, whole)
    assert in_a_save or due < 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_run_goes_on_exactly(
    place: Path, begin: Callable[[str, str], fork_server.Popen], number: signal.Signals
) -> None:
    folder = place / f"pretrain-{number.name}"
    process = begin("pretrain", number.name)
    wait_for_steps(process, folder, 15)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert process.stderr is not None
    said = process.stderr.read()
    assert f"{number.name}: stopped after step" in said and "Traceback" not in said
    assert "add `--resume auto` to the same command" in said
    assert "saved.\nA second signal" in said  # two lines, for 80 columns
    step = lines(folder)[-1]["step"]
    assert (folder / "checkpoints" / f"step-{step:07d}").is_dir()
    assert begin("pretrain", number.name).wait(120) == 0
    assert lines(folder) == lines(place / "pretrain-whole")
    final = "final/model.safetensors"
    assert (folder / final).read_bytes() == (place / "pretrain-whole" / final).read_bytes()
