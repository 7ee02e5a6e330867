"""GLUE's tasks as one table: every difference between tasks is a field of its row.

Rules and names are those of the GLUE benchmark (Wang et al. 2018, arXiv 1804.07461;
gluebenchmark.com/tasks) and of its copy on the Hub, nyu-mll/glue.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqzb.data.dataset import Classes, Kind, Number
from sqzb.errors import RecipeError

HUB_DATASET = "nyu-mll/glue"
SCORE_RANGE = (0.0, 5.0)  # of STS-B, GLUE's only regression


_BINARY = ("0", "1")
_TWO_WAY = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Task:
    """One GLUE task.

    name: what the user writes, e.g. "mrpc".
    labels: label names in GLUE's index order; none for regression.
    metrics: names of functions in sqzb.data.metrics; the task's score is their mean.
    columns: the sentence columns on the Hub, where the label is always in "label".
    file_columns: the sentence columns in GLUE's own files.
    file_label: the label column in GLUE's own files; test files may lack it.
    file_labels: labels as GLUE's own files and submissions write them, in the order of `labels`.
    folders: names of the folder of GLUE's own files, in any case, with or without hyphens.
    hub_config: the configuration of nyu-mll/glue.
    counts: examples by split in the Hub's copy.
    submission: the file of a submission with the predictions of each test split; empty for a task
    that is not in GLUE's submission.
    files: GLUE's own file of each split (in the Hub's names), in order of use.
    file_index: the column of test files whose values index a submission.
    header: columns of train and validation files that have no header line (CoLA).
    skip_short: skip rows that lack a column, as the Hub's copy does; GLUE's own QQP has such rows.
    other_files: other names under which the test file is published (AX).
    model_of: the task whose model predicts this task, which has only a test split (AX).
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
    counts: Mapping[str, int] = field(hash=False)
    submission: Mapping[str, str] = field(hash=False)
    files: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        hash=False,
    )
    file_index: str = "index"
    header: tuple[str, ...] = ()
    skip_short: bool = False
    other_files: tuple[str, ...] = ()
    model_of: str = ""

    @property
    def regression(self) -> bool:
        """Whether the label is a number (within SCORE_RANGE), not a class."""
        return not self.labels

    @property
    def kind(self) -> Kind:
        """The kind of the labels."""
        return Number(*SCORE_RANGE) if self.regression else Classes(self.labels)

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """Names of the validation splits: one, two of MNLI (matched first), none of AX."""
        return tuple(split for split in self.files if split.startswith("validation"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the test splits: one, or two of MNLI (matched first)."""
        return tuple(split for split in self.files if is_test(split))


def is_test(split: str) -> bool:
    """Return whether GLUE keeps back the labels of this split."""
    return split.startswith("test")


def _splits(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        Task(
            name="cola",
            labels=("unacceptable", "acceptable"),
            metrics=("matthews",),
            columns=("sentence",),
            file_columns=("sentence",),
            file_label="label",
            file_labels=_BINARY,
            folders=("CoLA",),
            hub_config="cola",
            counts=_splits(8551, 1043, 1063),
            submission={"test": "CoLA.tsv"},
            header=("source", "label", "mark", "sentence"),
        ),
        Task(
            name="sst2",
            labels=("negative", "positive"),
            metrics=("accuracy",),
            columns=("sentence",),
            file_columns=("sentence",),
            file_label="label",
            file_labels=_BINARY,
            folders=("SST-2",),
            hub_config="sst2",
            counts=_splits(67349, 872, 1821),
            submission={"test": "SST-2.tsv"},
        ),
        Task(
            name="mrpc",
            labels=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            columns=("sentence1", "sentence2"),
            file_columns=("#1 String", "#2 String"),
            file_label="Quality",
            file_labels=_BINARY,
            folders=("MRPC",),
            hub_config="mrpc",
            counts=_splits(3668, 408, 1725),
            submission={"test": "MRPC.tsv"},
        ),
        Task(
            name="qqp",
            labels=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            columns=("question1", "question2"),
            file_columns=("question1", "question2"),
            file_label="is_duplicate",
            file_labels=_BINARY,
            folders=("QQP",),
            hub_config="qqp",
            counts=_splits(363846, 40430, 390965),
            submission={"test": "QQP.tsv"},
            file_index="id",
            skip_short=True,
        ),
        Task(
            name="stsb",
            labels=(),
            metrics=("pearson", "spearman"),
            columns=("sentence1", "sentence2"),
            file_columns=("sentence1", "sentence2"),
            file_label="score",
            file_labels=(),
            folders=("STS-B",),
            hub_config="stsb",
            counts=_splits(5749, 1500, 1379),
            submission={"test": "STS-B.tsv"},
        ),
        Task(
            name="mnli",
            labels=_THREE_WAY,
            metrics=("accuracy",),
            columns=("premise", "hypothesis"),
            file_columns=("sentence1", "sentence2"),
            file_label="gold_label",
            file_labels=_THREE_WAY,
            folders=("MNLI",),
            hub_config="mnli",
            counts={
                "train": 392702,
                "validation_matched": 9815,
                "validation_mismatched": 9832,
                "test_matched": 9796,
                "test_mismatched": 9847,
            },
            submission={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
            files={
                "train": "train.tsv",
                "validation_matched": "dev_matched.tsv",
                "validation_mismatched": "dev_mismatched.tsv",
                "test_matched": "test_matched.tsv",
                "test_mismatched": "test_mismatched.tsv",
            },
        ),
        Task(
            name="qnli",
            labels=_TWO_WAY,
            metrics=("accuracy",),
            columns=("question", "sentence"),
            file_columns=("question", "sentence"),
            file_label="label",
            file_labels=_TWO_WAY,
            folders=("QNLI",),
            hub_config="qnli",
            counts=_splits(104743, 5463, 5463),
            submission={"test": "QNLI.tsv"},
        ),
        Task(
            name="rte",
            labels=_TWO_WAY,
            metrics=("accuracy",),
            columns=("sentence1", "sentence2"),
            file_columns=("sentence1", "sentence2"),
            file_label="label",
            file_labels=_TWO_WAY,
            folders=("RTE",),
            hub_config="rte",
            counts=_splits(2490, 277, 3000),
            submission={"test": "RTE.tsv"},
        ),
        Task(
            name="wnli",
            labels=("not_entailment", "entailment"),
            metrics=("accuracy",),
            columns=("sentence1", "sentence2"),
            file_columns=("sentence1", "sentence2"),
            file_label="label",
            file_labels=_BINARY,
            folders=("WNLI",),
            hub_config="wnli",
            counts=_splits(635, 71, 146),
            submission={"test": "WNLI.tsv"},
        ),
        Task(
            name="ax",
            labels=_THREE_WAY,
            metrics=("matthews",),
            columns=("premise", "hypothesis"),
            file_columns=("sentence1", "sentence2"),
            file_label="label",
            file_labels=_THREE_WAY,
            folders=("diagnostic", "AX"),
            hub_config="ax",
            counts={"test": 1104},
            submission={"test": "AX.tsv"},
            files={"test": "diagnostic.tsv"},
            other_files=("AX.tsv", "test.tsv"),
            model_of="mnli",
        ),
    )
}


# The tasks that a model can be finetuned on: all but AX, which has only a test split.
FINETUNED = tuple(name for name, row in TASKS.items() if not row.model_of)
# The tasks in GLUE's average and submission.
NINE = tuple(name for name in FINETUNED if TASKS[name].submission)


def task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        UserError: there is no such task; suggests the nearest name.
    """
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name.lower(), TASKS, n=1)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    raise RecipeError(f"There is no GLUE task {name!r}. {hint}The tasks are {', '.join(TASKS)}.")
