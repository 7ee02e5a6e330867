"""Sentences and labels of GLUE's files, as examples have them."""

import re
from collections.abc import Sequence
from typing import Any

from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.glue.tasks import SCORE_RANGE, Task


def example_of(sentences: Sequence[str], label: int | float | None, row: int) -> Example:
    """Return an example of one sentence or two.

    label: None if it is withheld.
    """
    return Example(sentences[0], sentences[1] if len(sentences) > 1 else None, label, row)


def label_of(task: Task, value: str, where: str) -> int | float:
    """Return the index of a label, or the score.

    Labels are matched by what GLUE's files write, name or number, because code bases order the
    names differently.
    """
    if whole(value) in task.file_labels:
        return task.file_labels.index(whole(value))
    score = score_of(value) if task.regression else None
    if score is not None:
        return score
    allowed = (
        "a number from {:g} to {:g}".format(*SCORE_RANGE)
        if task.regression
        else " or ".join(task.file_labels)
    )
    raise UserError(
        f"{where}: the label in column {task.file_label!r} is {value!r}, and must be {allowed}. "
        "Correct the row, or get the file again."
    )


def whole(value: str) -> str:
    """Return a label or a number without spaces around it; 1.0, as spreadsheets have it, is 1."""
    return re.sub(r"(?<=[0-9])\.0+$", "", value.strip())


def score_of(value: Any) -> float | None:
    """Return a value as a score, or None if it is none."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if SCORE_RANGE[0] <= score <= SCORE_RANGE[1] else None
