"""Data sets: the only form of labelled data that training, evaluation and prediction use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A class's index; a number; the indices of several labels; or the index of each word's tag.
Label = int | float | tuple[int, ...]

# The text of an example without a label: one text, a pair, or a list of words.
Text = str | tuple[str, str] | list[str]


class Example(NamedTuple):
    """A text, or a pair of texts, with its label.

    label: None if it is withheld.
    row: its number in the file or table, from 0. In a test split of GLUE it is the index of a
    submission.
    words: the words that tags belong to; None without tags. `text_a` is the words with spaces
    between.
    """

    text_a: str
    text_b: str | None
    label: Label | None
    row: int
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Named:
    """Labels with names, each known by its index into `names`."""

    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Number of outputs of a model for these labels: one for each name."""
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Names of a model's outputs, as config.json has them."""
        return dict(enumerate(self.names))


class Classes(_Named):
    """Every example has one label."""


class Labels(_Named):
    """Every example has any number of labels: several, one or none."""


class Tags(_Named):
    """Every word of an example has one label."""


@dataclass(frozen=True)
class Number:
    """Labels that are numbers from `low` to `high`.

    A model learns (label - mean) / std. What leaves it is in the labels' own unit.
    """

    low: float
    high: float
    mean: float = 0.0
    std: float = 1.0
    names: tuple[str, ...] = ()
    outputs: int = 1

    @property
    def id2label(self) -> dict[int, str]:
        """Names of a model's outputs, as config.json has them."""
        return {0: "score"}


Kind = Classes | Number | Labels | Tags


class Split(NamedTuple):
    """The examples of a split, and sentences to warn with about them."""

    examples: list[Example]
    warnings: list[str]


@dataclass(frozen=True)
class DataSet:
    """Labelled data for one task, whose splits are read when they are first needed.

    name: for messages and folders, such as mrpc.
    kind: the kind of the labels.
    texts: texts of each example: 1, or 2 for pairs.
    metrics: names of the metrics to measure, from sqzb.data.metrics.
    read: reads a split by name.
    train_split: name of the split to train on; None if there is none.
    validation_splits: names of the splits to measure on; MNLI has two.
    test_splits: names of the splits whose labels may be withheld, and choose nothing.
    on_disk: whether the splits are local files.
    model_of: the task whose model predicts this one, if it has no training split (AX).
    score_metrics: the `metrics` whose mean is the score, which chooses the best model; empty: all.
    """

    name: str
    kind: Kind
    texts: int
    metrics: tuple[str, ...]
    read: Callable[[str], Split]
    train_split: str | None
    validation_splits: tuple[str, ...]
    test_splits: tuple[str, ...]
    on_disk: bool
    model_of: str = ""
    score_metrics: tuple[str, ...] = ()

    @property
    def labelled_splits(self) -> tuple[str, ...]:
        """Names of the splits that have labels, the training split first."""
        train = () if self.train_split is None else (self.train_split,)
        return train + self.validation_splits


def is_empty(text: Text) -> bool:
    """Return whether an example has no text: all its parts are empty, or only white space."""
    parts = (text,) if isinstance(text, str) else text
    return not any(part.strip() for part in parts)


def are_labelled(examples: Sequence[Example]) -> bool:
    """Return whether all examples have a label; those of a test split may be withheld."""
    return all(example.label is not None for example in examples)


def empty_texts(examples: Sequence[Example]) -> int:
    """Return the number of examples with a text that is empty, or only white space."""
    empty = 0
    for example in examples:
        texts = [example.text_a] if example.text_b is None else [example.text_a, example.text_b]
        empty += any(not text.strip() for text in texts)
    return empty


def in_common(train: Sequence[Example], validation: Sequence[Example]) -> int:
    """Return the number of validation examples that have the texts of a training example."""
    seen = {(example.text_a, example.text_b) for example in train}
    return sum((example.text_a, example.text_b) in seen for example in validation)
