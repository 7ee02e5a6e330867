"""GLUE's tasks as one table: all that tells one task from another is a row here.

Rules and names are those of the GLUE benchmark (Wang et al. 2018, arXiv 1804.07461; gluebenchmark.com/tasks) and of
its copy on the Hub, nyu-mll/glue.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqzb.errors import UserError

HUB_DATASET = "nyu-mll/glue"
SCORE_RANGE = (0.0, 5.0)  # of STS-B, GLUE's one regression


@dataclass(frozen=True)
class Task:
    """One GLUE task.

    name          what the user writes, e.g. "mrpc"
    labels        the label names in GLUE's index order; none for regression
    metrics       names of functions in sqzb.finetuning.metrics; the task's score is their mean
    columns       the sentence column or columns on the Hub, where the label is always in "label"
    file_columns  the same in GLUE's own files
    file_label    the label column in GLUE's own files; test files need not have it
    file_labels   the labels as GLUE's own files and submissions write them, in the order of `labels`
    folders       names that the folder of GLUE's own files may have, in any case
    hub_config    the configuration of nyu-mll/glue
    files         from split (the Hub's name) to GLUE's own file; the order is that of use
    header        the columns of the train and validation files where these have no header line (CoLA)
    skip_short    pass over rows that lack a column, as the Hub's copy does (GLUE's own QQP has such rows)
    """

    name: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    file_columns: tuple[str, ...]
    file_label: str
    file_labels: tuple[str, ...]
    folders: tuple[str, ...]
    hub_config: str
    files: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}, hash=False
    )
    header: tuple[str, ...] = ()
    skip_short: bool = False

    @property
    def regression(self) -> bool:
        """Whether the label is a number (within SCORE_RANGE), not a class."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """How many outputs a model for this task has: one a class, one in all for regression."""
        return len(self.labels) or 1


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        Task(
            name="mrpc",
            labels=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            columns=("sentence1", "sentence2"),
            file_columns=("#1 String", "#2 String"),
            file_label="Quality",
            file_labels=("0", "1"),
            folders=("MRPC",),
            hub_config="mrpc",
        ),
        Task(
            name="rte",
            labels=("entailment", "not_entailment"),
            metrics=("accuracy",),
            columns=("sentence1", "sentence2"),
            file_columns=("sentence1", "sentence2"),
            file_label="label",
            file_labels=("entailment", "not_entailment"),
            folders=("RTE",),
            hub_config="rte",
        ),
    )
}


def task(name: str) -> Task:
    """The row of TASKS called `name`; UserError with the nearest name when there is none."""
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name.lower(), TASKS, n=1)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    raise UserError(f"There is no GLUE task {name!r}. {hint}The tasks are {', '.join(TASKS)}.")
