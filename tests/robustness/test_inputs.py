"""Damaged inputs: a command succeeds, or ends with a paragraph and exit code 1 or 2.

It gives no traceback, does not hang, and where a file has a checksum, success has the same result.
The number of damages for each kind of file is SQZB_DAMAGES; `make soak` makes 1,000 and more.
"""

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from damage import DAMAGES
from house import FINETUNE, run

DAMAGES_OF_A_KIND = int(os.environ.get("SQZB_DAMAGES", "1"))


class Kind(NamedTuple):
    """A kind of file, and the command that reads it.

    result: the files that success has to leave as they are without damage, for inputs that are
        checked; empty for inputs whose content is the user's.
    removed: what is removed before, so that the command has work to do.
    """

    files: tuple[str, ...]
    command: str
    result: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


# Files of runs that a look at several runs reads, with the corpus that has their baseline.
OF_RUNS = ("pretrained/*", "mrpc/*", "reviews/*", "corpus/manifest.json")
KINDS = {
    "source": Kind(("source.jsonl",), "prepare-corpus corpus.yaml --output new"),
    "corpus recipe": Kind(("corpus.yaml",), "prepare-corpus corpus.yaml --output new"),
    "recipe": Kind(("recipe.yaml",), "pretrain recipe.yaml --output new --dry-run"),
    "corpus": Kind(
        ("corpus/*", "corpus/*/*", "corpus/*/*/*"),
        "pretrain recipe.yaml --output new steps=2",
        ("new/final/model.safetensors",),
    ),
    "corpus that is repaired": Kind(
        ("corpus/*", "corpus/*/*", "corpus/*/*/*"), "prepare-corpus corpus.yaml --output corpus"
    ),
    "corpus that is shown": Kind(("corpus/*", "corpus/*/*"), "inspect-corpus corpus --n 2"),
    "pretraining run": Kind(
        ("pretrained/checkpoints/*/*", "pretrained/*"),
        "pretrain recipe.yaml --output pretrained --resume auto",
        ("pretrained/final/model.safetensors",),
        ("pretrained/final", "pretrained/checkpoints/step-0000006"),
    ),
    "finetuning run": Kind(
        ("mrpc/checkpoints/*/*", "mrpc/*"),
        "finetune --task mrpc --glue-dir . --model pretrained --output mrpc --resume auto epochs=2 "
        + " ".join(FINETUNE),
        ("mrpc/final/model.safetensors",),
        ("mrpc/final", "mrpc/checkpoints/step-0000004"),
    ),
    "finished run": Kind(("reviews/*", "reviews/final/*"), "eval reviews --json new.json"),
    "runs that are reported": Kind(OF_RUNS, "report pretrained mrpc reviews --output new.html"),
    "runs that are compared": Kind(OF_RUNS, "compare pretrained mrpc reviews"),
    "runs that are watched": Kind(OF_RUNS, "watch pretrained mrpc reviews --once"),
    "model": Kind(("pretrained/final/*",), "fill-mask pretrained/final [MASK]"),
    "classifier": Kind(("reviews/final/*",), "predict reviews/final river"),
    "GLUE": Kind(("MRPC/*",), "eval mrpc --glue-dir . --json new.json"),
    "table": Kind(("reviews.csv",), "predict reviews --file reviews.csv --output new.csv"),
    "lines": Kind(("reviews.jsonl",), "embed pretrained --file reviews.jsonl --output new.npy"),
    "own data": Kind(
        ("reviews.csv",),
        "finetune --train reviews.csv --model pretrained --output new epochs=1 "
        + " ".join(FINETUNE),
    ),
    "teachers' cache": Kind(
        ("cache/*", "cache/*/*", "cache/*/*/*"),
        "finetune --task mrpc --glue-dir . --model pretrained --teacher mrpc "
        "distillation.cache=cache epochs=1 --output new " + " ".join(FINETUNE),
        ("new/final/model.safetensors",),
    ),
}


def prepared(house: Path, folder: Path, kind: Kind) -> Path:
    """Return a copy of the house in which the kind's command has work to do."""
    shutil.copytree(house, folder, symlinks=True)
    for name in kind.removed:
        shutil.rmtree(folder / name)
    return folder


def results(folder: Path, kind: Kind) -> list[bytes]:
    return [(folder / name).read_bytes() for name in kind.result]


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_end_in_success_or_a_paragraph(
    name: str, house: Path, tmp_path: Path, record_property: object
) -> None:
    kind = KINDS[name]
    whole = prepared(house, tmp_path / "whole", kind)
    ended = run(whole, *kind.command.split())
    assert ended.returncode == 0, ended.stderr
    expected = results(whole, kind)

    draw = random.Random(name)
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(DAMAGES_OF_A_KIND):
        folder = prepared(house, tmp_path / str(number), kind)
        paths = sorted({path for pattern in kind.files for path in folder.glob(pattern)})
        path = draw.choice([path for path in paths if path.is_file()])
        damage = draw.choice(DAMAGES)
        label = f"{damage.__name__} of {path.relative_to(folder)}"
        damage(path, draw)
        problem, outcome = "", ""
        try:
            ended = run(folder, *kind.command.split())
        except subprocess.TimeoutExpired:
            outcome = problem = "hangs"
        else:
            outcome = "success" if ended.returncode == 0 else f"exit code {ended.returncode}"
            if "Traceback" in ended.stderr or ended.returncode not in (0, 1, 2):
                problem = f"{outcome}: {ended.stderr[-1500:]}"
            elif len(ended.stderr) > 5000:
                problem = f"{len(ended.stderr)} characters of error"
            elif ended.returncode == 0 and results(folder, kind) != expected:
                problem = "another result"
        outcomes[outcome] += 1
        if problem:
            failures.append(f"{label}: {problem}")
        shutil.rmtree(folder)
    print(f"\n{name}: {DAMAGES_OF_A_KIND} damages: {dict(outcomes)}")
    assert not failures, "\n\n".join(failures)
