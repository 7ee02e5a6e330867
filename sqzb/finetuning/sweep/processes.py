"""The processes of a sweep: one for each run, on a GPU or a share of the cores."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from sqzb import console
from sqzb.errors import Stopped
from sqzb.files import naming, whole_file
from sqzb.finetuning.sweep.plan import Run
from sqzb.recipe import dump_recipe
from sqzb.training.guards import SIGNALS, Signals
from sqzb.training.run_folder import final_figures, last_logged

LAST_LINES = 3  # of a failed run's output, to show
WAIT = 0.1  # seconds between two looks at the processes


class Outcome(NamedTuple):
    """The runs of a sweep that did not finish.

    failed: runs whose process failed, with its exit code and last lines.
    skipped: runs that were not started, because they need runs that failed; with the reason.
    """

    failed: dict[Run, str]
    skipped: dict[Run, str]


class _Working(NamedTuple):
    """A run in progress: its process, and the environment of its slot."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]


def run_all(runs: Sequence[Run], jobs: int) -> Outcome:
    """Run all that is not finished, `jobs` at once, each run after those that it needs.

    Raises:
        Stopped: a signal came. The runs in progress have saved themselves.
    """
    waiting = _Waiting(runs)
    free = _environments(jobs) if waiting.ready() else []
    working: dict[Run, _Working] = {}
    failed: dict[Run, str] = {}
    signals, forwarded = Signals(), False

    with signals.caught(), console.bar("Sweep", len(runs), len(waiting.finished)) as bar:
        try:
            while working or (waiting.ready() and not signals.received):
                if not signals.received:
                    _begin(waiting, free, working)
                elif not forwarded:
                    forwarded = True
                    for work in working.values():
                        work.process.send_signal(signals.received)

                for run, reason in _collect(waiting, free, working).items():
                    if not signals.received:  # otherwise the run has stopped and saved itself
                        failed[run] = reason

                texts = [_progress(run) for run in working]
                if not texts and waiting.ready() and not signals.received:
                    texts = ["waiting for the runs of a killed sweep"]
                bar.to(len(waiting.finished) + len(failed), *texts)
                time.sleep(WAIT)
        finally:  # no process is left behind where the sweep itself fails
            for work in working.values():
                work.process.terminate()
                work.process.wait()

    unfinished = [run for run in runs if run not in waiting.finished and run not in failed]
    if signals.received and unfinished:
        name = next(number.name for number in SIGNALS if number == signals.received)
        raise Stopped(
            f"{name}: the sweep has stopped with {len(waiting.finished)} of "
            f"{console.counted(len(runs), 'run')} finished. The other runs are saved. The same "
            "command resumes the sweep.",
            signals.received,
        )
    return Outcome(failed, _skipped(unfinished, {run.folder for run in (*failed, *unfinished)}))


def _progress(run: Run) -> str:
    """Return the run's name with the last step and loss of its log."""
    logged = last_logged(run.folder)
    if logged is None or not isinstance(logged.get("loss"), float):
        return run.name
    return f"{run.name} step {logged['step']:,} loss {logged['loss']:.3f}"


class _Waiting:
    """The runs that have not started, in an order in which each comes after those that it needs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.finished: set[Run] = set()
        self._by_folder = {run.folder: run for run in runs}
        # A finished run needs no other run.
        needs = {run.folder: run.needs if final_figures(run.folder) is None else () for run in runs}
        self._order = TopologicalSorter(needs)
        self._order.prepare()
        self._ready: list[Run] = []

    def ready(self) -> list[Run]:
        """Return the runs that could start now.

        Runs that have finished are removed, whichever sweep ran them: a killed sweep may have left
        runs in progress, which end by themselves.
        """
        while True:
            self._ready += [self._by_folder[folder] for folder in self._order.get_ready()]
            finished = [run for run in self._ready if final_figures(run.folder) is not None]
            if not finished:
                return list(self._ready)
            for run in finished:
                self._ready.remove(run)
                self.finish(run)

    def take(self, run: Run) -> None:
        """Remove a run that has started."""
        self._ready.remove(run)

    def finish(self, run: Run) -> None:
        """Record a run that has finished; runs that need it may be ready now."""
        self.finished.add(run)
        self._order.done(run.folder)


def _begin(waiting: _Waiting, free: list[dict[str, str]], working: dict[Run, _Working]) -> None:
    """Start runs that are ready while there are free slots."""
    for run in waiting.ready():
        if not free:
            return
        process = _start(run, free[0])
        if process is not None:
            waiting.take(run)
            working[run] = _Working(process, free.pop(0))


def _collect(
    waiting: _Waiting, free: list[dict[str, str]], working: dict[Run, _Working]
) -> dict[Run, str]:
    """Remove runs whose process has ended; return those that did not finish, with the reason."""
    unfinished = {}
    for run, work in list(working.items()):
        code = work.process.poll()
        if code is None:
            continue
        del working[run]
        free.append(work.environment)
        figures = final_figures(run.folder)
        if code == 0 and figures is not None:
            console.out.print(f"{run.name}: {figures['score']:.1%}")
            waiting.finish(run)
        else:
            unfinished[run] = _failure(run, code)
    return unfinished


def _failure(run: Run, code: int) -> str:
    """Return the exit code, the log and its last lines."""
    log = run.beside(".log")
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    last = [line for line in lines if line][-LAST_LINES:]
    return f"exit code {code}, {log}" + "".join(f"\n    {line}" for line in last)


def _skipped(unfinished: Sequence[Run], missing: set[Path]) -> dict[Run, str]:
    """Return the runs that could not start, with the missing runs that they need."""
    reasons = {}
    for run in unfinished:
        needs = [str(folder) for folder in run.needs if folder in missing]
        reasons[run] = f"not started, because it needs {' and '.join(needs)}"
    return reasons


def _environments(jobs: int) -> list[dict[str, str]]:
    """Return the environment of each slot: one of the visible GPUs, and a share of the cores."""
    if jobs == 1:
        return [dict(os.environ)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(number) for number in range(torch.cuda.device_count())]
    else:
        gpus = [name for name in visible.split(",") if name]
    share = str(max(1, (os.cpu_count() or 1) // jobs))
    common = {"OMP_NUM_THREADS": share} | os.environ
    return [
        common | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})
        for slot in range(jobs)
    ]


def _start(run: Run, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Start or resume the run; return None while a process of a killed sweep still runs it.

    The process inherits the lock on the log and holds it until it ends, even if the sweep ends
    before.
    """
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with naming(run.beside(".log")), run.beside(".log").open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        log.truncate(0)
        with whole_file(run.beside(".yaml")) as aside:
            aside.write_text(dump_recipe(run.recipe), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "sqzb",
            "finetune",
            "--recipe",
            str(run.beside(".yaml")),
            "--resume",
            "auto",
            # A stage without a teacher may inherit keys of distillation from the sweep.
            "--of-sweep",
        ]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
