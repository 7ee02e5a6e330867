"""GLUE's submission: one zip with a file of predictions for every test split, checked before it appears.

The format is that of gluebenchmark.com/faq: eleven files of tab-separated values, each with a header line. The labels
are written as GLUE's own files of the task write them.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.glue.tasks import SCORE_RANGE, TASKS, Task

HEADER = "index\tprediction"
DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the zip, so that equal predictions are equal bytes
NUMBER = re.compile(r"\d+(\.\d+)?")
# From (task, split) to the prediction for each index: a label index, or a number for regression.
Predictions = Mapping[tuple[str, str], Mapping[int, float]]

PLACES: dict[str, tuple[Task, str]] = {
    name: (task, split) for task in TASKS.values() for split, name in task.submission.items()
}


def write(path: Path, predictions: Predictions) -> None:
    """Write the zip, whose bytes follow from the predictions alone.

    `predictions` has every test split of every task, by the `row` of its examples; AX's are its model's, which is
    MNLI's. Numbers of a regression are clipped to SCORE_RANGE. Raises UserError with all problems, and leaves what was
    at `path`, when the zip would not pass `check`.
    """
    known = {(task.name, split) for task, split in PLACES.values()}
    problems = [
        f"{task}'s {split} split has no place in it" for task, split in predictions if (task, split) not in known
    ]
    with whole_file(path) as aside:
        with zipfile.ZipFile(aside, "w") as archive:
            for name, (task, split) in PLACES.items():
                if (task.name, split) in predictions:
                    entry = zipfile.ZipInfo(name, DATE)
                    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                    archive.writestr(entry, _content(task, predictions[task.name, split]))
        _refuse(path, problems + list(_problems(aside)), "cannot be written")


def check(path: Path) -> None:
    """Raise UserError, with all problems, unless the zip at `path` is a submission that GLUE can take.

    It has the eleven files and no other; each has its header line, one row for each example of GLUE's test split, the
    indices from 0 upwards, and predictions as GLUE writes them.
    """
    _refuse(path, list(_problems(path)), "cannot be sent to GLUE")


def _refuse(path: Path, problems: list[str], what: str) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"The submission {path} {what}:{listed}\nPredict GLUE's whole test splits, and write it anew.")


def _content(task: Task, predictions: Mapping[int, float]) -> str:
    rows = (f"{index}\t{_written(task, predictions[index])}\n" for index in sorted(predictions))
    return f"{HEADER}\n{''.join(rows)}"


def _written(task: Task, value: float) -> str:
    """A prediction as GLUE writes it; one that GLUE cannot take as it is, for the check to find."""
    if task.regression:
        return f"{min(max(value, SCORE_RANGE[0]), SCORE_RANGE[1]):.6f}" if math.isfinite(value) else str(value)
    return task.file_labels[int(value)] if value in range(task.kind.outputs) else str(value)


def _problems(path: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            yield from (f"{name} is in it twice" for name in sorted({name for name in names if names.count(name) > 1}))
            yield from (f"{name!r} does not belong in it" for name in names if name not in PLACES)
            for name, (task, split) in PLACES.items():
                if name in names:
                    yield from (f"{name}{problem}" for problem in _problems_of_file(task, split, _read(archive, name)))
                else:
                    yield f"{name} is missing ({task.name}'s {split} split)"
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        yield f"it cannot be read as a zip ({error})"


def _read(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """What the file holds; None when it is damaged, encrypted or packed in a way that cannot be read."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return None


def _problems_of_file(task: Task, split: str, content: bytes | None) -> Iterator[str]:
    """The first problem of each kind, with its line."""
    if content is None:
        yield " is damaged"
        return
    header, *lines = content.decode("utf-8", errors="replace").removesuffix("\n").split("\n")
    if header != HEADER:
        yield f":1: the header is {_shown(header)} and must be {HEADER!r}"
    if len(lines) != task.counts[split]:
        yield f" has {len(lines):,} rows and must have {task.counts[split]:,}"
    rows = [line.partition("\t") for line in lines]
    wrong = next((row for row, (index, _, _) in enumerate(rows) if index != str(row)), None)
    if wrong is not None:
        yield f":{wrong + 2}: the index is {_shown(rows[wrong][0])} and must be {wrong}"
    wrong = next((row for row, (_, _, value) in enumerate(rows) if not _allowed(task, value)), None)
    if wrong is not None:
        allowed = (
            "a number from {:g} to {:g}".format(*SCORE_RANGE) if task.regression else " or ".join(task.file_labels)
        )
        yield f":{wrong + 2}: the prediction is {_shown(rows[wrong][2])} and must be {allowed}"


def _allowed(task: Task, value: str) -> bool:
    if not task.regression:
        return value in task.file_labels
    return NUMBER.fullmatch(value) is not None and SCORE_RANGE[0] <= float(value) <= SCORE_RANGE[1]


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}...")
