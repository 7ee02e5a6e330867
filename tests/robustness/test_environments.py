"""Environments that fail in the middle: a command succeeds, or ends with a paragraph.

The disk is full, over its quota, read-only or broken from one moment on, or the folder is removed.
The same command afterwards gives the result of an undisturbed one. The number of faults for each
command is SQZB_DAMAGES; `make soak` makes 1,000 and more.
"""

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

import faulty
from house import FINETUNE, run

FAULTS_OF_A_COMMAND = int(os.environ.get("SQZB_DAMAGES", "1"))
FAULTS = ("ENOSPC", "ENOSPC-always", "EDQUOT-always", "EROFS-always", "EACCES", "EIO", "EMFILE",
          "ENOENT", "vanish", "file-size")  # fmt: skip
PROGRAM = [faulty.__file__]


class Written(NamedTuple):
    """A command that writes, the file that it writes last, and roughly its writing calls."""

    command: str
    result: str
    calls: int


COMMANDS = {
    "prepare-corpus": Written(
        "prepare-corpus corpus.yaml --output new", "new/manifest.json", 40
    ),
    "pretrain": Written(
        "pretrain recipe.yaml --output new --resume auto", "new/final/model.safetensors", 80
    ),
    "finetune": Written(
        "finetune --task mrpc --glue-dir . --model pretrained --output new --resume auto epochs=2 "
        + " ".join(FINETUNE),
        "new/final/model.safetensors",
        80,
    ),
    "distil": Written(
        "finetune --task mrpc --glue-dir . --model pretrained --output new --resume auto epochs=1 "
        "--teacher mrpc distillation.cache=kept " + " ".join(FINETUNE),
        "new/final/model.safetensors",
        60,
    ),
    "sweep": Written(
        "finetune --task mrpc --glue-dir . --model pretrained --output new --seeds 1,2 epochs=1 "
        + " ".join(FINETUNE),
        "new/results.json",
        12,
    ),
    "eval": Written("eval reviews --json new.json", "new.json", 3),
    "predict": Written("predict reviews --file reviews.csv --output new.csv", "new.csv", 3),
    "embed": Written("embed pretrained --file reviews.jsonl --output new.npy", "new.npy", 3),
    # The page itself has the time of its writing.
    "report": Written(
        "report pretrained mrpc --output new.html", "new_files/mlm-loss.csv", 20
    ),
    "recipes": Written("recipes copy phase1_128 new.yaml", "new.yaml", 2),
}  # fmt: skip


# A sweep starts a Python for each of its runs.
QUICK = [name for name in COMMANDS if name != "sweep" or FAULTS_OF_A_COMMAND > 20]


@pytest.mark.parametrize("name", QUICK)
def test_failing_environments_end_in_success_or_a_paragraph(
    name: str, house: Path, tmp_path: Path
) -> None:
    command, result, calls = COMMANDS[name]
    whole = shutil.copytree(house, tmp_path / "whole", symlinks=True)
    ended = run(whole, *command.split())
    assert ended.returncode == 0, ended.stderr
    expected = (whole / result).read_bytes()

    draw = random.Random(name)
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(FAULTS_OF_A_COMMAND):
        folder = shutil.copytree(house, tmp_path / str(number), symlinks=True)
        fault = draw.choice(FAULTS)
        moment = draw.choice([0, 100, 5000]) if fault == "file-size" else draw.randint(1, calls)
        problem = ""
        try:
            ended = run(folder, fault, str(moment), *command.split(), program=PROGRAM)
            outcome = "success" if ended.returncode == 0 else f"exit code {ended.returncode}"
            if "Traceback" in ended.stderr or ended.returncode not in (0, 1, 2):
                problem = f"{outcome}: {ended.stderr[-1500:]}"
            elif not (folder / result).exists() or (folder / result).read_bytes() != expected:
                again = run(folder, *command.split())
                if fault == "vanish" and "holds other files" in again.stderr:
                    # What was written after the removal has no recipe, and is not taken for ours.
                    shutil.rmtree(folder / "new")
                    again = run(folder, *command.split())
                if again.returncode != 0:
                    problem = f"afterwards: {again.stderr[-1500:]} (first: {ended.stderr[-800:]})"
                elif (folder / result).read_bytes() != expected:
                    problem = f"another result afterwards (first: {ended.stderr[-800:]})"
        except subprocess.TimeoutExpired:
            outcome = problem = "hangs"
        outcomes[outcome] += 1
        if problem:
            failures.append(f"{fault} at {moment}: {problem}")
        shutil.rmtree(folder)
    print(f"\n{name}: {FAULTS_OF_A_COMMAND} faults: {dict(outcomes)}")
    assert not failures, "\n\n".join(failures)
