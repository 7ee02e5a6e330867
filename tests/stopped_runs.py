"""A run's metrics, and a task to finetune on; for the tests that stop runs."""

import json
import re
from pathlib import Path
from typing import Any

from conftest import WORDS
from sqzb.training.throughput import Throughput


def write_task(folder: Path, n: int) -> None:
    """A task of `n` examples in MRPC's own files, under `folder`, whose label one word tells."""
    (folder / "MRPC").mkdir()
    rows = [
        f"{i % 2}\t0\t0\t{'water river' if i % 2 else 'stone winter'}\tlight {i}" for i in range(n)
    ]
    for name in ("train.tsv", "dev.tsv"):
        (folder / "MRPC" / name).write_text(
            "\n".join(["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows]) + "\n"
        )


def write_worded(folder: Path, n: int) -> None:
    """The files of `write_task` and `write_scored`, whose second texts are words alone."""
    write_task(folder, n)
    for name in ("train.tsv", "dev.tsv"):
        path = folder / "MRPC" / name
        path.write_text(
            re.sub(
                r"light (\d+)", lambda found: f"light {WORDS[int(found[1]) % 33]}", path.read_text()
            )
        )
    write_scored(folder)


def write_scored(folder: Path) -> None:
    """STS-B's files beside those of `write_task`, of the same texts, with the labels as scores of 0
    and 5.
    """
    (folder / "STS-B").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        rows = [line.split("\t") for line in (folder / "MRPC" / name).read_text().splitlines()[1:]]
        scored = [
            "sentence1\tsentence2\tscore",
            *(f"{row[3]}\t{row[4]}\t{5 * int(row[0])}" for row in rows),
        ]
        (folder / "STS-B" / name).write_text("\n".join(scored) + "\n")


def lines(run: Path) -> list[dict[str, Any]]:
    """Of the metrics, less the throughput, which no two runs have in common; a last line that is
    torn is left out.
    """
    if not (run / "metrics.jsonl").exists():
        return []
    found = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text().rsplit("\n", 1)[0].split("\n")
        if line
    ]
    return [
        {key: value for key, value in line.items() if key not in {*Throughput._fields, "time"}}
        for line in found
    ]
