"""Examples to token numbers, and these to padded batches."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb.data.dataset import Example, Kind, Number
from sqzb.model.heads import IGNORED
from sqzb.tokenizer import special_ids
from sqzb.training.engine import MicroBatch


class Encoded(NamedTuple):
    """Examples as token numbers, ready to be padded into batches."""

    ids: list[list[int]]
    types: list[list[int]]
    labels: NDArray[Any]  # float32 for regression, else int64
    pad: int

    @property
    def sha256(self) -> str:
        """Of all examples and their labels."""
        content = json.dumps([self.ids, self.types, self.labels.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def first(self, n: int) -> "Encoded":
        """The first n examples."""
        return Encoded(self.ids[:n], self.types[:n], self.labels[:n], self.pad)

    def with_more(self, other: "Encoded") -> "Encoded":
        """These examples, then another set's from the same tokenizer."""
        labels = np.concatenate([self.labels, other.labels])
        return Encoded(self.ids + other.ids, self.types + other.types, labels, self.pad)

    def batch(
        self, rows: Sequence[int] | NDArray[np.int64], unit: int = 1, most: int = 0
    ) -> MicroBatch:
        """The examples `rows`, padded to the longest; a row under 0 is padding alone, without a label.

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
        labels = np.where(np.asarray(rows) < 0, IGNORED, self.labels[rows]).astype(
            self.labels.dtype
        )
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "labels": labels,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, kind: Kind
) -> Encoded:
    """[CLS] a [SEP] b [SEP], cut to `max_length` from the end of the longer segment, as transformers does.

    Examples without a label, as in test files, get one that does not count. The padding is the tokenizer's own, or
    BERT's where that has none.
    """
    padding = tokenizer.padding
    pad = padding["pad_id"] if padding else special_ids(tokenizer).pad
    tokenizer.no_padding()  # batches are padded when they are made
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    texts = [e.text_a if e.text_b is None else (e.text_a, e.text_b) for e in examples]
    encodings = tokenizer.encode_batch(texts)
    tokenizer.no_truncation()
    if padding:
        tokenizer.enable_padding(**padding)
    labels = [IGNORED if e.label is None else e.label for e in examples]
    return Encoded(
        [encoding.ids for encoding in encodings],
        [encoding.type_ids for encoding in encodings],
        np.array(labels, np.float32 if isinstance(kind, Number) else np.int64),
        pad,
    )
