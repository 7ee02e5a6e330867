"""The inputs of a race of latency: random tokens of one length, or real texts."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sqzb.bench.cells import Inputs
from sqzb.bench.contestants import Contestant
from sqzb.data.dataset import Classes, DataSet, Example, Kind, Tags, are_labelled
from sqzb.data.formats import STANDARD_INPUT, open_table
from sqzb.data.texts import choose_texts
from sqzb.errors import UserError
from sqzb.export.heads import INPUTS
from sqzb.finetuning.data import read_known
from sqzb.finetuning.encode import encode
from sqzb.finetuning.finetuned import data_for, text_columns
from sqzb.model.open import ModelFolder

CALLS = 10  # of a turn, where all inputs have one length
SAMPLED = 64  # texts of a turn otherwise
MEASURED = 1000  # examples of the accuracy


class Source(NamedTuple):
    """Where texts come from, as the command line says it.

    files: of texts, labelled or not.
    columns: of the texts; empty: recognised.
    label: column of the labels; None: that of the run's data.
    task: a GLUE task, whose validation sentences are taken.
    """

    files: Sequence[str] = ()
    columns: Sequence[str] = ()
    label: str | None = None
    task: str | None = None
    glue_dir: Path | None = None


class Texts(NamedTuple):
    """Texts with their origin.

    data: the data set of labelled examples; None if there are no labels.
    """

    origin: str
    examples: list[Example]
    data: DataSet | None

    @property
    def kind(self) -> Kind:
        """The kind of the labels; without labels one that every example has."""
        return Classes(("",)) if self.data is None else self.data.kind


def read_texts(path: str, own: Contestant, source: Source) -> Texts:
    """Read the texts of a file or a task, with labels where the model is one for them.

    path: of the model.

    Raises:
        UserError: the texts cannot be read, or there are none.
    """
    if STANDARD_INPUT in source.files:
        raise UserError("--data - is standard input, which is read once. Give a file.")
    if source.task is not None:
        data = data_for(path, source.task, source.glue_dir)
        return _labelled(data, f"{data.name}, {_first(data)} split", bool(own.id2label))
    if _has_labels(path, source):
        data = data_for(path, None, None, source.files, source.columns, source.label)
        return _labelled(data, data.name, bool(own.id2label))
    remembered = text_columns(ModelFolder(own.folder))
    if own.record is not None:
        remembered = tuple(own.record.columns)
    examples: list[Example] = []
    for file in source.files:
        opened = open_table(file)
        table = choose_texts(opened, source.columns, remembered, None, takes_words=True)
        for row in table.table.rows():
            text = table.text(row)
            if text is not None:
                first, second = text if isinstance(text, tuple) else (text, None)
                plain = first if isinstance(first, str) else " ".join(first)
                examples.append(Example(plain, second, None, row.number))
    if not examples:
        raise UserError(f"{', '.join(source.files)} has no text. Give a file of texts.")
    return Texts(", ".join(source.files), examples, None)


def _first(data: DataSet) -> str:
    if not data.validation_splits:
        raise UserError(f"{data.name} has no validation split. Give another --task.")
    return data.validation_splits[0]


def _labelled(data: DataSet, origin: str, has_classifier: bool) -> Texts:
    examples = data.read(_first(data)).examples
    if not examples:
        raise UserError(f"{origin} has no examples. Give another file of texts.")
    is_measurable = has_classifier and are_labelled(examples)
    if not is_measurable and isinstance(data.kind, Tags):
        examples = [example._replace(words=None) for example in examples]
    return Texts(origin, examples, data if is_measurable else None)


def _has_labels(path: str, source: Source) -> bool:
    """Return whether the model is a run on own data, and all files have its column of labels."""
    known = read_known(Path(path))
    if known is None:
        if source.label is not None:
            raise UserError(
                f"--label is for a run on data of your own, and {path} is none. Leave it out, or "
                "give --task for a run on a GLUE task."
            )
        return False
    label = source.label or known.label
    return source.label is not None or all(
        label in open_table(file, isinstance(known.kind, Tags)).columns for file in source.files
    )


def random_batches(contestants: Sequence[Contestant], batch: int, length: int) -> list[Inputs]:
    """Return the calls of a turn on random tokens that all contestants know, without padding."""
    draws = np.random.default_rng(0)
    shape = (batch, length)
    tokens = min(contestant.tokenizer.get_vocab_size() for contestant in contestants)
    ids = draws.integers(0, tokens, shape, np.int64)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    return [inputs] * CALLS


def sample(texts: Texts, batch: int) -> list[Example]:
    """Return examples whose lengths are spread as those of all texts are, in a random order.

    Raises:
        UserError: there are fewer texts than a batch has.
    """
    if len(texts.examples) < batch:
        raise UserError(
            f"{texts.origin} has {len(texts.examples)} texts, and --batch is {batch}. Give more "
            "texts, or a smaller batch."
        )
    by_length = sorted(texts.examples, key=_characters)
    count = min(len(by_length), max(SAMPLED, batch))
    # The middle of each part of equal size, so that no end has too much weight.
    ranks = (np.arange(count) + 0.5) * len(by_length) / count
    chosen = [by_length[rank] for rank in ranks.astype(int)]
    random.Random(0).shuffle(chosen)
    return chosen


def _characters(example: Example) -> int:
    return len(example.text_a) + len(example.text_b or "")


def text_batches(
    contestant: Contestant, examples: Sequence[Example], kind: Kind, batch: int
) -> list[Inputs]:
    """Return the calls of a turn: whole batches of the examples, padded to their longest."""
    encoded = encode(examples, contestant.tokenizer, contestant.max_length, kind)
    batches: list[Inputs] = []
    for start in range(0, len(examples) - batch + 1, batch):
        rows = list(range(start, start + batch))
        tensors = encoded.batch(rows)
        batches.append({name: tensors[name].numpy() for name in INPUTS})
    return batches


def for_accuracy(texts: Texts) -> list[Example]:
    """Return at most MEASURED examples, evenly spaced in the file."""
    step = -(-len(texts.examples) // MEASURED)
    return texts.examples[::step]
