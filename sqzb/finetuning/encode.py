"""Encoding: from examples to token ids, and from these to padded batches."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from sqzb.data.dataset import Example, Kind, Labels, Number, Tags
from sqzb.model.heads import IGNORED
from sqzb.model.scale import has_scale, to_scale
from sqzb.tokenizer import special_ids
from sqzb.training.engine import MicroBatch

LOST = -1  # position of a word that is behind the cut, or that has no token

AT_ONCE = 1024  # examples to encode at once: their whole encodings are in memory

Value = TypeVar("Value")
Rows = Sequence[int] | NDArray[np.int64]


class Words(NamedTuple):
    """The positions of examples' words among their tokens.

    ends: (examples + 1); the words of example i are entries ends[i] to ends[i + 1] of all words.
    places: (words), position of a word's first token in its example, or LOST.
    """

    ends: NDArray[np.int64]
    places: NDArray[np.int64]

    @property
    def lost(self) -> int:
        """Number of words that the model does not see."""
        return int(np.sum(self.places == LOST))

    def of(self, example: int) -> slice:
        """Return the rows of an example's words among all words."""
        return slice(int(self.ends[example]), int(self.ends[example + 1]))

    def first(self, n: int) -> "Words":
        """Return the words of the first n examples."""
        return Words(self.ends[: n + 1], self.places[: self.ends[n]])


class Encoded(NamedTuple):
    """Examples as token ids, ready to be padded into batches.

    labels: int64 class indices or float32 numbers, (examples); of several labels an example float32
    (examples, labels) of 0 and 1; of tags int64 (words), example by example.
    words: only for tags.
    """

    ids: list[list[int]]
    types: list[list[int]]
    labels: NDArray[Any]
    pad: int
    words: Words | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of all examples and their labels."""
        content = [self.ids, self.types, self.labels.tolist()]
        if self.words is not None:
            content += [self.words.ends.tolist(), self.words.places.tolist()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def first(self, n: int) -> "Encoded":
        """Return the first n examples."""
        words = None if self.words is None else self.words.first(n)
        labels = self.labels[: n if words is None else len(words.places)]
        return Encoded(self.ids[:n], self.types[:n], labels, self.pad, words)

    def with_more(self, other: "Encoded") -> "Encoded":
        """Return these examples followed by another set's from the same tokenizer, without tags."""
        assert self.words is None
        labels = np.concatenate([self.labels, other.labels])
        return Encoded(self.ids + other.ids, self.types + other.types, labels, self.pad)

    def batch(self, rows: Rows, unit: int = 1, most: int = 0) -> MicroBatch:
        """Return the examples `rows` as a batch, padded to the longest.

        rows: a negative row is padding, without a label.
        unit, most: pad further to a multiple of `unit`, but not over `most`.
        """
        there = [(place, row) for place, row in enumerate(rows) if row >= 0]
        width = max((len(self.ids[row]) for _, row in there), default=1)
        width = max(width, min(-(-width // unit) * unit, most))
        ids = np.full((len(rows), width), self.pad)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in there:
            n = len(self.ids[row])
            ids[place, :n], types[place, :n], mask[place, :n] = self.ids[row], self.types[row], 1
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "labels": self.rows_of(self.labels, rows, width, IGNORED),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def rows_of(self, values: NDArray[Any], rows: Rows, width: int, fill: float) -> NDArray[Any]:
        """Return a batch's part of values in the order of `labels`, such as labels or logits.

        The entry of a negative row is `fill`. Of tags, the entries are by position, (rows, width):
        a word's entry is at its first token, and all others are `fill`.
        """
        batch = np.full((len(rows), *values.shape[1:]), fill, values.dtype)
        if self.words is None:
            kept = np.asarray(rows) >= 0
            batch[kept] = values[np.asarray(rows)[kept]]
            return batch
        batch = np.full((len(rows), width, *values.shape[1:]), fill, values.dtype)
        for place, row in enumerate(rows):
            if row >= 0:
                words = self.words.of(int(row))
                places = self.words.places[words]
                batch[place, places[places != LOST]] = values[words][places != LOST]
        return batch


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, kind: Kind
) -> Encoded:
    """Encode [CLS] a [SEP] b [SEP], cut to `max_length`.

    The cut takes tokens from the end of the longer segment, as transformers does. Of tags, the
    words are encoded one by one. Examples without a label, as in test files, get a label that does
    not count. The padding is the tokenizer's own, or BERT's if it has none.
    """
    padding = tokenizer.padding
    pad = padding["pad_id"] if padding else special_ids(tokenizer).pad
    tokenizer.no_padding()  # batches are padded when they are made
    # The library's own truncation keeps the parts that it cuts off: for a pair, each part of one
    # text with each part of the other, which takes memory as the product of their lengths.
    tokenizer.no_truncation()

    ids: list[list[int]] = []
    types: list[list[int]] = []
    places: list[NDArray[np.int64]] = []
    for start in range(0, len(examples), AT_ONCE):
        chunk = examples[start : start + AT_ONCE]
        for example, encoding in zip(chunk, _encodings(chunk, tokenizer, kind), strict=True):
            kept = _kept_positions(encoding, max_length)
            ids.append(_at(encoding.ids, kept))
            types.append(_at(encoding.type_ids, kept))
            if isinstance(kind, Tags):
                places.append(_first_tokens(example, _at(encoding.word_ids, kept)))

    if padding:
        tokenizer.enable_padding(**padding)
    words = None
    if isinstance(kind, Tags):
        ends = np.cumsum([0, *map(len, places)])
        words = Words(ends, np.concatenate([*places, np.zeros(0, np.int64)]))
    return Encoded(ids, types, _labels(examples, kind), pad, words)


def _encodings(examples: Sequence[Example], tokenizer: Tokenizer, kind: Kind) -> list[Encoding]:
    """Return the whole encodings of examples."""
    if isinstance(kind, Tags):
        lists = [list(example.words or ()) for example in examples]
        return list(tokenizer.encode_batch(lists, is_pretokenized=True))
    texts = [e.text_a if e.text_b is None else (e.text_a, e.text_b) for e in examples]
    return list(tokenizer.encode_batch(texts))


def _kept_positions(encoding: Encoding, max_length: int) -> list[int] | None:
    """Return the positions of the tokens that fit `max_length`; None if all fit.

    Special tokens are always kept.
    """
    if len(encoding.ids) <= max_length:
        return None
    segments = encoding.sequence_ids  # 0 and 1, and None for a special token
    sizes = segments.count(0), segments.count(1)
    left = list(longest_first(*sizes, max(0, max_length - segments.count(None))))
    kept: list[int] = []
    for position, segment in enumerate(segments):
        if segment is None:
            kept.append(position)
        elif left[segment]:
            left[segment] -= 1
            kept.append(position)
    return kept


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each segment are kept, as transformers' rule of this name does.

    Tokens are taken from the end of the longer segment, until both together fit `room`.
    """
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)


def _at(values: list[Value], positions: list[int] | None) -> list[Value]:
    """Return the values at the positions; None stands for all."""
    return values if positions is None else [values[position] for position in positions]


def on_scale(kind: Kind, encoded: Encoded) -> Encoded:
    """Return the examples with labels as a model learns them: numbers on the model's scale."""
    if not has_scale(kind):
        return encoded
    return encoded._replace(labels=to_scale(kind, encoded.labels))


def _labels(examples: Sequence[Example], kind: Kind) -> NDArray[Any]:
    if isinstance(kind, Labels):
        rows = np.zeros((len(examples), kind.outputs), np.float32)
        for row, example in zip(rows, examples, strict=True):
            if isinstance(example.label, tuple):
                row[list(example.label)] = 1
            else:
                row[:] = IGNORED
        return rows
    if isinstance(kind, Tags):
        tags: list[int] = []
        for example in examples:
            withheld = (IGNORED,) * len(example.words or ())
            tags += example.label if isinstance(example.label, tuple) else withheld
        return np.array(tags, np.int64)
    labels = [IGNORED if e.label is None else e.label for e in examples]
    return np.array(labels, np.float32 if isinstance(kind, Number) else np.int64)


def _first_tokens(example: Example, word_ids: list[int | None]) -> NDArray[np.int64]:
    """Return the position of each word's first token, or LOST."""
    of_words = np.full(len(example.words or ()), LOST)
    # From the end, so that the first token of a word is the one that stays.
    for position, word in reversed([*enumerate(word_ids)]):
        if word is not None:
            of_words[word] = position
    return of_words
