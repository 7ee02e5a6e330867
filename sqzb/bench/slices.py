"""Slices of a pretraining run: a command that is stopped after some seconds of training.

The next slice resumes the run exactly, so that runs which take turns are those of undisturbed
commands, and a noisy machine slows all of them down alike.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb import console
from sqzb.files import parse_json_object
from sqzb.training.run_folder import METRICS, resumes_of

POLL = 0.2  # seconds between two looks at the log of a run
STOPPED = 128 + signal.SIGTERM  # the exit code of a run that has saved its last step


def training_seconds(run: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logged steps of a run and the seconds of training up to each, both (n).

    The seconds are those of the training steps at their logged speed. Evaluations and checkpoints
    have no part in these. The first interval after a start has the speed of the next one, because
    it contains the compilation.
    """
    lines = [line for line in log_lines(run) if line.get("tokens_per_second")]
    starts = [0, *(int(mark["step"]) for mark in resumes_of(run))]
    steps, seconds = [0], [0.0]
    tokens = 0.0
    for number, line in enumerate(lines):
        is_first = any(steps[-1] <= start < line["step"] for start in starts)
        following = lines[number + 1] if is_first and number + 1 < len(lines) else line
        taken = (line["tokens"] - tokens) / following["tokens_per_second"]
        steps.append(line["step"])
        seconds.append(seconds[-1] + taken)
        tokens = line["tokens"]
    return np.array(steps, np.float64), np.array(seconds)


def log_lines(run: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's log; none if there is no log yet."""
    try:
        lines = (run / METRICS).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    objects = []
    for line in lines:
        try:
            objects.append(parse_json_object(line))
        except ValueError:
            continue  # torn by a kill: the resumed run removes it
    return objects


def is_finished(run: Path) -> bool:
    """Return whether the run has written final/ and its last evaluation."""
    lines = log_lines(run)
    about = run / "run.json"
    if not lines or not about.is_file() or not (run / "final").is_dir():
        return False
    steps = json.loads(about.read_text(encoding="utf-8"))["steps"]
    return "heldout_mlm_loss" in lines[-1] and lines[-1]["step"] == steps


def run_slice(run: Path, arguments: Sequence[str], seconds: float, threads: int | None) -> None:
    """Run `sqzb pretrain` until it has trained for `seconds` more, or is finished.

    arguments: of the command, without output and resume. The output of the command is added to a
    file beside the run's folder.
    threads: threads of torch; None: those of the environment.

    Exits the script if the command fails.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    log = run.with_name(run.name + ".log")
    before = float(training_seconds(run)[1][-1])
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "sqzb", "pretrain", *arguments]
    command += ["--output", str(run), "--resume", "auto"]
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | limit
        )
        try:
            while process.poll() is None:
                time.sleep(POLL)
                if float(training_seconds(run)[1][-1]) - before >= seconds:
                    process.send_signal(signal.SIGTERM)
                    break
            code = process.wait()
        finally:
            if process.returncode is None:  # the script itself was stopped
                process.kill()
                process.wait()
    if code not in (0, STOPPED):
        console.out.print(f"{' '.join(command)} failed with exit code {code}:")
        console.out.print(log.read_text(encoding="utf-8")[-2000:])
        sys.exit(code)
