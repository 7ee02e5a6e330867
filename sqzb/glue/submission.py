"""GLUE's submission: a zip of predictions for every test split, checked before it is written.

The format is that of gluebenchmark.com/faq: eleven files of tab-separated values, each with a
header line. Labels are written as in GLUE's own files of the task.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqzb.console import counted
from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.glue.tasks import SCORE_RANGE, TASKS, Task

HEADER = "index\tprediction"
# The date of every file in the zip: a fixed one, so that equal predictions give equal bytes.
DATE = (1980, 1, 1, 0, 0, 0)
# From (task, split) to the prediction for each index: a label index, or a number for regression.
Predictions = Mapping[tuple[str, str], Mapping[int, float]]

# The task and test split of each file in the zip.
FILES: dict[str, tuple[Task, str]] = {
    name: (task, split) for task in TASKS.values() for split, name in task.submission.items()
}


def write(path: Path, predictions: Predictions) -> None:
    """Write the zip; its bytes are a function of the predictions alone.

    predictions: every test split of every task, by the `row` of its examples. AX is predicted by
    MNLI's model. Predictions of a regression are clipped to SCORE_RANGE.

    Raises:
        UserError: GLUE would reject the zip; lists all problems. A file that exists at `path`
            stays.
    """
    problems = list(_problems(predictions))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(
            f"The submission {path} cannot be written:{listed}\nPredict GLUE's whole test splits, "
            "and write it anew."
        )
    with whole_file(path) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, (task, split) in FILES.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            values = predictions[task.name, split]
            written = {value: _written(task, value) for value in set(values.values())}
            rows = (f"{index}\t{written[values[index]]}\n" for index in sorted(values))
            archive.writestr(entry, f"{HEADER}\n{''.join(rows)}")


def _written(task: Task, value: float) -> str | None:
    """Return a prediction as GLUE writes it; None for a value that GLUE would reject."""
    if task.regression:
        lowest, highest = SCORE_RANGE
        return f"{min(max(value, lowest), highest):.6f}" if math.isfinite(value) else None
    return task.file_labels[int(value)] if value in range(task.kind.outputs) else None


def _problems(predictions: Predictions) -> Iterator[str]:
    known = {(task.name, split) for task, split in FILES.values()}
    for task_name, split in predictions:
        if (task_name, split) not in known:
            yield f"{task_name}'s {split} split has no place in it"
    for name, (task, split) in FILES.items():
        if (task.name, split) in predictions:
            for problem in _problems_of_file(task, split, predictions[task.name, split]):
                yield f"{name}{problem}"
        else:
            yield f"{name} is missing ({task.name}'s {split} split)"


def _problems_of_file(task: Task, split: str, predictions: Mapping[int, float]) -> Iterator[str]:
    """Yield the first problem of each kind, with its line in the file."""
    if len(predictions) != task.counts[split]:
        yield f" has {counted(len(predictions), 'row')} and must have {task.counts[split]:,}"
    indices = sorted(predictions)
    wrong = next((row for row, index in enumerate(indices) if index != row), None)
    if wrong is not None:
        yield f":{wrong + 2}: the index is {str(indices[wrong])!r} and must be {wrong}"
    values = [predictions[index] for index in indices]
    bad = {value for value in set(values) if _written(task, value) is None}
    wrong = next((row for row, value in enumerate(values) if value in bad), None)
    if wrong is not None:
        allowed = (
            "a number from {:g} to {:g}".format(*SCORE_RANGE)
            if task.regression
            else " or ".join(task.file_labels)
        )
        yield f":{wrong + 2}: the prediction is {str(values[wrong])!r} and must be {allowed}"
