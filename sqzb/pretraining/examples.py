"""Chunks to examples: segments in order or swapped (SOP), and masked tokens (MLM).

Everything random about an example is a function of (seed, epoch, chunk number), so each epoch
splits, swaps and masks a chunk anew, and a resumed run or one on more devices sees the same
examples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.corpus.store import ChunkRows, Chunks
from sqzb.draws import U64, below, hash64, uniform
from sqzb.model.heads import IGNORED
from sqzb.recipe import Masking
from sqzb.tokenizer import SpecialIds

# What a draw decides; part of its key, so that the decisions are independent.
_SPLIT, _SWAP, _PLACE, _REPLACE, _TOKEN, _WORDS = range(6)
# Of the chosen positions, BERT masks 80 %, replaces 10 % by a random token and keeps 10 %.
MASKED, REPLACED = 0.8, 0.1
# The chances that an n-gram has up to 1, 2 and 3 words: n is drawn in proportion to 1/n (ALBERT,
# Lan et al. 2020).
UP_TO_WORDS = np.cumsum([1 / 1, 1 / 2, 1 / 3]) / (1 / 1 + 1 / 2 + 1 / 3)

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Batch(NamedTuple):
    """Arrays of whole numbers, under the names that SqueezeBertForPreTraining.forward takes."""

    input_ids: Ids  # (batch, length)
    attention_mask: Ids  # (batch, length)
    token_type_ids: Ids  # (batch, length)
    mlm_positions: Ids  # (batch, predictions), 0 in an empty slot
    mlm_labels: Ids  # (batch, predictions), -100 in an empty slot
    sop_labels: Ids  # (batch): 1 swapped, 0 in order, -100 where one sentence stands alone


class Objectives:
    """Makes examples of `length` places with at most `max_predictions` masked ones.

    continuing: (vocabulary) which tokens go on with a word.
    """

    def __init__(
        self,
        special: SpecialIds,
        continuing: Flags,
        length: int,
        max_predictions: int,
        masking_rate: float,
        masking: Masking,
        sop: bool,
        seed: int,
    ) -> None:
        self._special = special
        self._continuing = continuing
        self._is_ordinary = np.ones(len(continuing), bool)
        self._is_ordinary[list(special)] = False
        self._ordinary = np.flatnonzero(self._is_ordinary)
        self._length = length
        self._max_predictions = max_predictions
        self._masking_rate = masking_rate
        self._masking = masking
        self._sop = sop
        self._seed = seed

    def batch(self, chunks: Chunks, epochs: Ids, numbers: Ids) -> Batch:
        """The examples of chunks `numbers` in `epochs`, both (batch)."""
        keys = hash64(self._seed, epochs, numbers)
        ids, mask, types, sop_labels = self._segments(chunks.rows(numbers), keys)
        masked, positions, labels = self._mask(ids, mask.sum(1), keys)
        return Batch(
            masked, mask.astype(np.int64), types.astype(np.int64), positions, labels, sop_labels
        )

    def part(self, examples: Batch, rows: slice, length: int) -> Batch:
        """Some of the examples, which fit into `length` places, with slots for as many predictions as that makes."""
        slots = int(self._predictions(np.array(length)))
        ids, mask, types = (np.ascontiguousarray(array[rows, :length]) for array in examples[:3])
        positions, labels = (np.ascontiguousarray(array[rows, :slots]) for array in examples[3:5])
        return Batch(ids, mask, types, positions, labels, examples.sop_labels[rows])

    def _predictions(self, tokens: Ids) -> Ids:
        """How many are chosen of so many tokens, the special ones among them, as BERT's create_pretraining_data.py
        counts."""
        wanted: Ids = (
            np.rint(self._masking_rate * tokens).astype(np.int64).clip(1, self._max_predictions)
        )
        return wanted

    def _segments(self, chunks: ChunkRows, keys: U64) -> tuple[Ids, Flags, Flags, Ids]:
        """[CLS] a [SEP] b [SEP], where b comes first in half of the cases: ids, mask, types and SOP labels.

        The split falls on a sentence boundary. A chunk of one sentence stays one segment, `[CLS] a
        [SEP]`, and has no SOP label: a foreign second segment would make the task BERT's next
        sentence prediction.
        """
        tokens, sizes, boundaries, counts = chunks
        rows, sizes = np.arange(len(tokens)), sizes[:, None]
        paired = (counts > 0) & self._sop
        split = boundaries[rows, (uniform(keys, _SPLIT) * counts).astype(np.int64)]
        swapped = paired & (uniform(keys, _SWAP) < 0.5)
        # The text turned so that it begins with segment A, which has `first` tokens.
        turn = np.where(swapped, split, 0)[:, None]
        first = np.where(paired, np.where(swapped, sizes[:, 0] - split, split), sizes[:, 0])[
            :, None
        ]
        order = np.arange(tokens.shape[1])
        inside = order < sizes
        turned = order - turn
        turned += np.where(turned < 0, sizes, 0)
        place = 1 + turned + (turned >= first)  # behind [CLS], and [SEP]

        places = np.arange(self._length)
        ids = np.full((len(rows), self._length), self._special.pad, np.int64)
        ids[np.broadcast_to(rows[:, None], place.shape)[inside], place[inside]] = tokens[inside]
        ids[:, 0] = self._special.cls
        ids[rows, first[:, 0] + 1] = self._special.sep
        ids[rows[paired], sizes[paired, 0] + 2] = self._special.sep
        mask = places < sizes + 2 + paired[:, None]
        return ids, mask, mask & (places > first + 1), np.where(paired, swapped, IGNORED)

    def _mask(self, ids: Ids, tokens: Ids, keys: U64) -> tuple[Ids, Ids, Ids]:
        """(masked ids, positions, labels).

        In each row min(max_predictions, max(1, round(rate * tokens))) are chosen, but never special
        ones. Whole words and n-grams are taken in a random order, each that still fits, so these
        can be a few less.
        """
        ordinary = self._is_ordinary[ids]
        wanted = self._predictions(tokens)
        chosen = self._choose(self._starts(ids, ordinary, keys), ordinary, wanted, keys)

        rows, places = np.nonzero(chosen)
        counts = chosen.sum(1)
        slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.zeros((len(ids), self._max_predictions), np.int64)
        labels = np.full_like(positions, IGNORED)
        positions[rows, slots] = places
        labels[rows, slots] = old = ids[rows, places]

        action = uniform(keys[rows], _REPLACE, places)
        random = self._ordinary[below(len(self._ordinary), keys[rows], _TOKEN, places)]
        masked = ids.copy()
        masked[rows, places] = np.where(
            action < MASKED, self._special.mask, np.where(action < MASKED + REPLACED, random, old)
        )
        return masked, positions, labels

    def _starts(self, ids: Ids, ordinary: Flags, keys: U64) -> Flags:
        """Where what is masked together starts: a token, a word, or an n-gram of whole words in one segment."""
        if self._masking == "token":
            return ordinary
        begins = ordinary.copy()  # behind a special token
        begins[:, 1:] &= ~ordinary[:, :-1]
        words = ordinary & (begins | ~self._continuing[ids])
        if self._masking == "word":
            return words
        n_words = 1 + np.searchsorted(
            UP_TO_WORDS, uniform(keys[:, None], _WORDS, np.arange(ids.shape[1]))
        )
        starts = np.zeros_like(words)
        left: Ids = np.zeros(len(ids), np.int64)  # words that the n-gram goes on for
        for place in range(ids.shape[1]):
            word = words[:, place]
            starts[:, place] = start = word & (begins[:, place] | (left == 0))
            left = np.where(start, n_words[:, place], left) - word
        return starts

    def _choose(self, starts: Flags, ordinary: Flags, wanted: Ids, keys: U64) -> Flags:
        """Which places are masked: of what starts at `starts`, in a random order, each that still fits."""
        places = np.arange(starts.shape[1])
        order = np.argsort(np.where(starts, uniform(keys[:, None], _PLACE, places), 2.0), axis=1)
        if self._masking == "token":
            start_of, sizes = places[None], starts.astype(np.int64)
        else:
            start_of = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
            flat = (start_of + np.arange(len(starts))[:, None] * starts.shape[1])[ordinary]
            sizes = np.bincount(flat, minlength=starts.size).reshape(starts.shape)
        taken = np.empty_like(starts)
        np.put_along_axis(taken, order, _fitting(np.take_along_axis(sizes, order, 1), wanted), 1)
        return np.take_along_axis(taken, np.broadcast_to(start_of, starts.shape), 1) & ordinary


def _fitting(sizes: Ids, room: Ids) -> Flags:
    """Which of the things of these sizes are taken when they come one after the other: each that still fits."""
    sizes = sizes.copy()
    order = np.arange(sizes.shape[1])
    while True:
        filled = np.cumsum(sizes, axis=1)
        over = (sizes > 0) & (filled > room[:, None])
        rows = np.flatnonzero(over.any(1))
        if not len(rows):
            return sizes > 0
        # What is larger than the room that is left before the first too large one will never fit.
        first = over[rows].argmax(1)
        left = room[rows] - filled[rows, first] + sizes[rows, first]
        sizes[rows] = np.where(
            (order >= first[:, None]) & (sizes[rows] > left[:, None]), 0, sizes[rows]
        )
