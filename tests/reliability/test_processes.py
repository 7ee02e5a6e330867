"""pretrain as two processes that talk through gloo: they are one run, end as one, and go on as any
number.
"""

import math
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fork_server
import torchrun
from sqzb.corpus.store import Corpus
from sqzb.errors import PeerLost
from stopped_runs import lines, write_task

LOST = max(1, int(os.environ.get("SQZB_KILLS", "3")) // 10)  # processes to kill of each rank
# Seconds in which all that happens here has happened: far fewer than the minutes that a process
# waits for another that says nothing (engine.PATIENCE), so a lost one has been noticed.
BOUND = 60.0
RECIPE = """
corpus: {corpus}
sequence_length: 16
max_predictions: 3
model: {{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 32,
  hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}}
steps: 26
global_batch: 24
micro_batch: 6
log_every: 1
evaluate_every: 9
evaluate_sequences: 16
checkpoint_every: 6
"""
IMPATIENT = """
from datetime import timedelta
from sqzb.cli import main
from sqzb.training import engine
engine.PATIENCE = timedelta(seconds=1)
main()
"""
# One process whose third loss is no number.
BROKEN = """
import os, sys
from sqzb.model import SqueezeBertForPreTraining as Model
whole, calls = Model.forward, []
def broken(self, *inputs, **named):
    output = whole(self, *inputs, **named)
    calls.append(None)
    if os.environ["RANK"] == "1" and len(calls) == 3:
        output.loss_sums["mlm"].loss.mul_(float("nan"))
    return output
Model.forward = broken
from sqzb.cli import main
main()
"""
# The model's checkpoints are larger than any disk.
LARGE = """
from sqzb.training import checkpoints
checkpoints.size = lambda *_: 1 << 60
from sqzb.cli import main
main()
"""
# A process that is killed at its first call of a function: aimed.py RANK MODULE OWNER NAME ...
AIMED = """
import os, signal, sys
from importlib import import_module
rank, module, owner, name = (sys.argv.pop(1) for _ in range(4))
if rank == os.environ["RANK"]:
    module = import_module(module)
    die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    setattr(getattr(module, owner, module), name, die)
from sqzb.cli import main
main()
"""
# Each with who is killed there, one after the other in one run: after a checkpoint's model is
# written aside and before its optimizer is, while the other takes the next step; in an evaluation
# that the other waits for; at the very end.
MOMENTS = [
    (0, "sqzb.training.checkpoints", "", "write_tensors"),
    (0, "sqzb.training.engine", "Evaluator", "evaluate"),
    (1, "sqzb.training.engine", "Evaluator", "evaluate"),
    (0, "shutil", "", "rmtree"),  # of the oldest checkpoint
    (0, "sqzb.training.checkpoints", "", "write_final"),
    (1, "sqzb.pretraining.job", "Pretraining", "finish"),
]


class Processes(list[fork_server.Popen]):
    """The processes of a run, by rank; what they say lies beside the run's folder."""

    def __init__(self, folder: Path, output: str, n: int, arguments: list[str]) -> None:
        self.run, self._said = (
            folder / output,
            [folder / f"{output}-{rank}.said" for rank in range(n)],
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free.getsockname()[1]),
                "WORLD_SIZE": str(n),
            }
        for rank, path in enumerate(self._said):
            world = {} if n == 1 else place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with path.open("w") as said:
                command = [sys.executable, *arguments, "--output", output, "--resume", "auto"]
                environment = os.environ | {"OMP_NUM_THREADS": "1", **world}
                started = fork_server.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
                self.append(started)

    def codes(self) -> list[int]:
        """Exit codes, once all have ended; a hang is an error."""
        return [process.wait(BOUND) for process in self]

    def said(self, rank: int) -> str:
        return self._said[rank].read_text()

    def wait_for_lines(self, more: int) -> None:
        """Until so many lines more are logged, or the run is over."""
        before = len(lines(self.run))
        while self[0].poll() is None and len(lines(self.run)) < before + more:
            time.sleep(0.01)


Begin = Callable[..., Processes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    made = tmp_path_factory.mktemp("processes")
    (made / "recipe.yaml").write_text(RECIPE.format(corpus=corpus.folder))
    (made / "broken.py").write_text(BROKEN)
    (made / "aimed.py").write_text(AIMED)
    (made / "large.py").write_text(LARGE)
    (made / "impatient.py").write_text(IMPATIENT)
    return made


@pytest.fixture(scope="module")
def begin(folder: Path) -> Iterator[Begin]:
    begun: list[Processes] = []

    def run(
        output: str,
        n: int,
        *overrides: str,
        program: tuple[str, ...] = ("-m", "sqzb"),
        command: tuple[str, ...] = ("pretrain", "recipe.yaml"),
    ) -> Processes:
        begun.append(Processes(folder, output, n, [*program, *command, *overrides]))
        return begun[-1]

    yield run
    for processes in begun:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def whole(folder: Path, begin: Begin) -> Path:
    """A run of one process that nothing disturbed."""
    assert begin("whole", 1).codes() == [0]
    return folder / "whole"


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """A line of the metrics, with NaN where a step had nothing to measure, as a few short
    chunks.
    """
    return {key: math.nan if value is None else value for key, value in line.items()}


def same(run: Path, whole: Path) -> None:
    """The same data bit for bit, and the same losses and weights to 1e-5."""
    assert [(line["step"], line.get("tokens")) for line in lines(run)] == [
        (line["step"], line.get("tokens")) for line in lines(whole)
    ]
    for line, expected in zip(lines(run), lines(whole), strict=True):
        assert numbers(line) == pytest.approx(numbers(expected), rel=1e-5, abs=1e-5, nan_ok=True)
    weights = load_file(run / "final" / "model.safetensors")
    for name, tensor in load_file(whole / "final" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n", "micro_batch"), [(1, 24), (2, 3)])
def test_a_step_is_the_same_however_it_is_divided(
    whole: Path, begin: Begin, n: int, micro_batch: int
) -> None:
    """1 x 24 and 2 processes x 4 x 3 against 4 x 6; and one process writes."""
    processes = begin(f"divided-{n}-{micro_batch}", n, f"micro_batch={micro_batch}")
    assert processes.codes() == [0] * n
    same(processes.run, whole)
    assert "Pretrained" in processes.said(0)
    assert [processes.said(rank) for rank in range(1, n)] == [""] * (n - 1)


def test_two_processes_finetune_as_one(folder: Path, whole: Path, begin: Begin) -> None:
    """The last batch of an epoch has 5 examples: one process has one more than the other. They
    agree on the best model and on an early end.
    """
    write_task(folder, 61)
    command = ("finetune", "--task", "mrpc", "--model", whole.name, "--glue-dir", ".")
    settings: tuple[str, ...] = ("epochs=3", "batch=8", "max_length=16", "log_every=1", "lr=1e-3")
    settings += ("keep_best=true", "evaluate_every=3", "early_stopping=3")
    assert begin("finetuned-by-1", 1, *settings, command=command).codes() == [0]
    assert begin("finetuned-by-2", 2, *settings, command=command).codes() == [0, 0]
    same(folder / "finetuned-by-2", folder / "finetuned-by-1")
    assert (
        "of_step" in lines(folder / "finetuned-by-2")[-1]
        and lines(folder / "finetuned-by-2")[-1]["step"] < 24
    )


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [(2, 1, signal.SIGTERM), (2, 1, signal.SIGINT), (1, 2, signal.SIGTERM)],
    ids=["2to1-SIGTERM", "2to1-SIGINT", "1to2-SIGTERM"],
)
def test_a_signal_to_one_ends_all_and_another_number_goes_on(
    whole: Path, begin: Begin, before: int, after: int, number: signal.Signals
) -> None:
    output = f"from-{before}-to-{after}-{number.name}"
    processes = begin(output, before)
    processes.wait_for_lines(4)
    processes[-1].send_signal(number)  # with two processes, not the one that writes
    assert processes.codes() == [128 + number] * before
    step = lines(processes.run)[-1]["step"]
    assert 3 <= step < 26 and (processes.run / "checkpoints" / f"step-{step:07d}").is_dir()
    assert f"stopped after step {step}" in processes.said(0)
    assert all("Traceback" not in processes.said(rank) for rank in range(before))
    assert begin(output, after).codes() == [0] * after
    same(processes.run, whole)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_process_ends_the_other_and_costs_nothing(
    whole: Path, begin: Begin, killed: int
) -> None:
    draw = random.Random(f"{os.environ.get('SQZB_SEED', '0')} {killed}")
    kills = 0
    while kills < LOST:
        processes = begin("lost", 2)
        processes.wait_for_lines(draw.randrange(1, 20))
        time.sleep(draw.random() * 0.05)  # anywhere in a step, a save or an evaluation
        processes[killed].kill()
        codes = processes.codes()
        if (
            0 in codes
        ):  # the run was over sooner, or needed the other no more: once more from the beginning
            shutil.rmtree(processes.run)
            continue
        kills += 1
        assert codes[1 - killed] == PeerLost.exit_code, processes.said(1 - killed)
        said = processes.said(1 - killed)
        assert (
            "another process of the run has ended" in said
            and "--resume auto" in said
            and "Traceback" not in said
        )
    assert begin("lost", 2).codes() == [0, 0]
    same(processes.run, whole)
    shutil.rmtree(processes.run)


def test_a_process_killed_in_a_save_or_an_evaluation_ends_the_other_and_costs_nothing(
    whole: Path, begin: Begin
) -> None:
    for killed, *place in MOMENTS:
        processes = begin("aimed", 2, program=("aimed.py", str(killed), *place))
        assert processes[killed].wait(BOUND) == -signal.SIGKILL, (place, processes.said(killed))
        assert processes.codes()[1 - killed] == PeerLost.exit_code, (
            place,
            processes.said(1 - killed),
        )
        assert "another process of the run has ended" in processes.said(1 - killed), place
    assert begin("aimed", 2).codes() == [0, 0]
    same(processes.run, whole)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_process_that_never_comes_is_not_waited_for_without_end(
    begin: Begin, missing: int
) -> None:
    processes = begin("alone", 2, program=("impatient.py",))
    processes[missing].kill()
    assert processes.codes()[1 - missing] == PeerLost.exit_code
    said = processes.said(1 - missing)
    assert "did not find each other within 1 seconds" in said and "Traceback" not in said


def test_what_is_not_finite_in_one_process_is_skipped_by_both(begin: Begin) -> None:
    processes = begin("broken", 2, "steps=6", program=("broken.py",))
    assert processes.codes() == [0, 0], processes.said(1)
    skipped = [line["step"] for line in lines(processes.run) if line.get("skipped")]
    assert skipped == [2]  # a process has two micro-batches a step
    weights = load_file(processes.run / "final" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_second_run_in_the_folder_is_refused_by_all_its_processes(begin: Begin) -> None:
    first = begin("taken", 1, "steps=100000")
    first.wait_for_lines(2)
    second = begin("taken", 2, "steps=100000")
    assert second.codes() == [1, 1]
    assert "Another run is using" in second.said(0) and second.said(1) == ""
    assert first[0].poll() is None
    first[0].kill()


@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_torchrun_and_a_terminal_pass_a_signal_on(
    whole: Path, begin: Begin, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """A terminal sends Ctrl-C to all, and torchrun once more to its processes: this is one
    signal.
    """
    program = (torchrun.__file__, "--standalone", "--nproc-per-node", "2", "-m", "sqzb")
    processes = begin(f"torchrun-{number.name}", 1, program=program)
    processes.wait_for_lines(4)
    send(processes[0].pid, number)
    assert processes.codes() != [0]
    step = lines(processes.run)[-1]["step"]
    assert 3 <= step < 26 and (processes.run / "checkpoints" / f"step-{step:07d}").is_dir()
    assert begin(f"torchrun-{number.name}", 1).codes() == [0]
    same(processes.run, whole)


def test_too_small_a_disk_is_refused_by_all_processes_and_told_once(begin: Begin) -> None:
    processes = begin("large", 2, program=("large.py",))
    assert processes.codes() == [1, 1]
    assert "checkpoints and the model will take" in processes.said(0) and processes.said(1) == ""
