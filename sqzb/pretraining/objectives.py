"""Chunks to examples: segments in order or swapped (SOP), and masked tokens (MLM).

Everything random about an example is a function of (seed, epoch, chunk number), so each epoch splits, swaps and
masks a chunk anew, and a resumed run or one on more devices sees the same examples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.corpus.store import Chunks
from sqzb.draws import below, hash64, uniform
from sqzb.model.heads import IGNORED
from sqzb.tokenizer import SpecialIds

# What a draw decides; part of its key, so that the decisions are independent.
_SPLIT, _SWAP, _PLACE, _REPLACE, _TOKEN = range(5)
# Of the chosen positions, BERT masks 80 %, replaces 10 % by a random token and keeps 10 %.
MASKED, REPLACED = 0.8, 0.1


class Batch(NamedTuple):
    """Arrays of whole numbers, under the names that SqueezeBertForPreTraining.forward takes."""

    input_ids: NDArray[np.int64]  # (batch, length)
    attention_mask: NDArray[np.int64]  # (batch, length)
    token_type_ids: NDArray[np.int64]  # (batch, length)
    mlm_positions: NDArray[np.int64]  # (batch, predictions), 0 in an empty slot
    mlm_labels: NDArray[np.int64]  # (batch, predictions), -100 in an empty slot
    sop_labels: NDArray[np.int64]  # (batch): 1 swapped, 0 in order, -100 where one sentence stands alone


class Objectives:
    """Makes examples of `length` places with at most `max_predictions` masked ones."""

    def __init__(
        self,
        special: SpecialIds,
        vocab_size: int,
        length: int,
        max_predictions: int,
        masking_rate: float,
        sop: bool,
        seed: int,
    ) -> None:
        self._special = special
        self._ordinary = np.setdiff1d(np.arange(vocab_size), special)
        self._length = length
        self._max_predictions = max_predictions
        self._masking_rate = masking_rate
        self._sop = sop
        self._seed = seed

    def batch(self, chunks: Chunks, epochs: NDArray[np.int64], numbers: NDArray[np.int64]) -> Batch:
        """The examples of chunks `numbers` in `epochs`, both (batch)."""
        keys = hash64(self._seed, epochs, numbers)
        ids, types, sop_labels = self._segments(chunks, numbers, keys)
        mask = (ids != self._special.pad).astype(np.int64)
        masked, positions, labels = self._mask(ids, keys)
        return Batch(masked, mask, types, positions, labels, sop_labels)

    def _segments(
        self, chunks: Chunks, numbers: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """[CLS] a [SEP] b [SEP], where b comes first in half of the cases; (ids, types, sop labels).

        The split falls on a sentence boundary. A chunk of one sentence stays one segment, `[CLS] a [SEP]`, and has
        no SOP label: a foreign second segment would make the task BERT's next sentence prediction.
        """
        ids = np.full((len(numbers), self._length), self._special.pad, np.int64)
        types = np.zeros_like(ids)
        labels = np.full(len(numbers), IGNORED, np.int64)
        split_draws, swaps = uniform(keys, _SPLIT), uniform(keys, _SWAP) < 0.5
        for row, number in enumerate(numbers):
            tokens, boundaries = chunks[int(number)]
            n = len(tokens)
            ids[row, 0] = self._special.cls
            if not len(boundaries) or not self._sop:
                ids[row, 1 : n + 1] = tokens
                ids[row, n + 1] = self._special.sep
                continue
            split = boundaries[int(split_draws[row] * len(boundaries))]
            first, second = tokens[:split], tokens[split:]
            if swaps[row]:
                first, second = second, first
            labels[row] = swaps[row]
            a = len(first)
            ids[row, 1 : a + 1] = first
            ids[row, a + 1] = self._special.sep
            ids[row, a + 2 : n + 2] = second
            ids[row, n + 2] = self._special.sep
            types[row, a + 2 : n + 3] = 1
        return ids, types, labels

    def _mask(
        self, ids: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(masked ids, positions, labels): min(max_predictions, max(1, round(rate * tokens))) in each row, where
        tokens counts the special ones, as BERT's create_pretraining_data.py does, but never chooses them."""
        places = np.arange(self._length)
        special = np.isin(ids, self._special)
        wanted = np.rint(self._masking_rate * (ids != self._special.pad).sum(1)).astype(np.int64)
        wanted = np.minimum(wanted.clip(1, self._max_predictions), (~special).sum(1))
        draws = np.where(special, 2.0, uniform(keys[:, None], _PLACE, places))
        positions = np.argpartition(draws, self._max_predictions - 1, axis=1)[:, : self._max_predictions]
        by_draw = np.argsort(np.take_along_axis(draws, positions, 1), axis=1)
        positions = np.take_along_axis(positions, by_draw, 1)
        chosen = np.arange(self._max_predictions) < wanted[:, None]
        labels = np.where(chosen, np.take_along_axis(ids, positions, 1), IGNORED)
        positions = np.where(chosen, positions, 0)

        slots = np.arange(self._max_predictions)
        action = uniform(keys[:, None], _REPLACE, slots)
        random = self._ordinary[below(len(self._ordinary), keys[:, None], _TOKEN, slots)]
        new = np.where(action < MASKED, self._special.mask, np.where(action < MASKED + REPLACED, random, labels))
        masked = ids.copy()
        rows = np.broadcast_to(np.arange(len(ids))[:, None], positions.shape)
        masked[rows[chosen], positions[chosen]] = new[chosen]
        return masked, positions, labels
