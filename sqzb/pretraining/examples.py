"""From chunks to examples: segments in order or swapped (SOP), and masked tokens (MLM).

All random choices of an example are functions of (seed, epoch, chunk number). So each epoch splits,
swaps and masks a chunk anew, and a resumed run or one on more devices sees the same examples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.corpus.store import ChunkRows, Chunks
from sqzb.draws import U64, below, hash64, uniform
from sqzb.model.heads import IGNORED
from sqzb.recipe import Masking
from sqzb.tokenizer import SpecialIds

# The decision that a draw is for, as a part of its key, so that decisions are independent.
_SPLIT, _SWAP, _PLACE, _REPLACE, _TOKEN, _WORDS = range(6)
# Of the chosen positions, BERT masks 80 %, replaces 10 % by a random token and keeps 10 %.
MASKED, REPLACED = 0.8, 0.1
MOST_SPECIAL = 3  # special tokens of an example, at most: [CLS] a [SEP] b [SEP]
# Probabilities that an n-gram has up to 1, 2 and 3 words: P(n) is proportional to 1/n (ALBERT, Lan
# et al. 2020, section 4.1).
UP_TO_WORDS = np.cumsum([1 / 1, 1 / 2, 1 / 3]) / (1 / 1 + 1 / 2 + 1 / 3)

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Batch(NamedTuple):
    """Integer arrays, under the names of SqueezeBertForPreTraining.forward's arguments.

    Without padding, input_ids and token_type_ids are (rows), and mlm_positions, which are rows
    then, and mlm_labels are (predictions).
    """

    input_ids: Ids  # (batch, length)
    attention_mask: Ids  # (batch, length)
    token_type_ids: Ids  # (batch, length)
    mlm_positions: Ids  # (batch, predictions), 0 in an empty slot
    mlm_labels: Ids  # (batch, predictions), -100 in an empty slot
    sop_labels: Ids  # (batch): 1 swapped, 0 in order, -100 for a single sentence


class Objectives:
    """The masked-token and sentence-order objectives: from chunks to examples.

    continuing: (vocabulary), whether a token continues a word.
    length: tokens of an example, special ones and padding included.
    max_predictions: masked tokens of an example, at most.
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
        """Return the examples of the chunks `numbers` in `epochs`, both (batch)."""
        keys = hash64(self._seed, epochs, numbers)
        ids, mask, types, sop_labels = self._segments(chunks.rows(numbers), keys)
        masked, positions, labels = self._mask(ids, mask.sum(1), keys)
        return Batch(
            masked, mask.astype(np.int64), types.astype(np.int64), positions, labels, sop_labels
        )

    def part(self, examples: Batch, rows: slice, length: int) -> Batch:
        """Return some of the examples, cut to `length` tokens and to the predictions of these."""
        slots = int(self.predictions(np.array(length)))
        ids, mask, types = (np.ascontiguousarray(array[rows, :length]) for array in examples[:3])
        positions, labels = (np.ascontiguousarray(array[rows, :slots]) for array in examples[3:5])
        return Batch(ids, mask, types, positions, labels, examples.sop_labels[rows])

    def predictions(self, tokens: Ids) -> Ids:
        """Return the number of tokens to predict among `tokens` ones, special tokens included.

        BERT's create_pretraining_data.py counts the same way.
        """
        wanted: Ids = (
            np.rint(self._masking_rate * tokens).astype(np.int64).clip(1, self._max_predictions)
        )
        return wanted

    def _segments(self, chunks: ChunkRows, keys: U64) -> tuple[Ids, Flags, Flags, Ids]:
        """Build [CLS] a [SEP] b [SEP], with a and b swapped in half of the examples.

        Returns ids, mask, types, each (batch, length), and SOP labels (batch).

        The split falls on a sentence boundary. A chunk of one sentence stays one segment, `[CLS] a
        [SEP]`, and has no SOP label: a second segment from another chunk would make the task BERT's
        next sentence prediction.
        """
        tokens, sizes, boundaries, counts = chunks
        rows, sizes = np.arange(len(tokens)), sizes[:, None]
        paired = (counts > 0) & self._sop
        split = boundaries[rows, (uniform(keys, _SPLIT) * counts).astype(np.int64)]
        swapped = paired & (uniform(keys, _SWAP) < 0.5)

        # Rotate the text so that it begins with segment A, which has `first` tokens.
        turn = np.where(swapped, split, 0)[:, None]
        size_of_a = np.where(swapped, sizes[:, 0] - split, split)
        first = np.where(paired, size_of_a, sizes[:, 0])[:, None]
        order = np.arange(tokens.shape[1])
        inside = order < sizes
        turned = order - turn
        turned += np.where(turned < 0, sizes, 0)
        position = 1 + turned + (turned >= first)  # behind [CLS], and the first [SEP]

        ids = np.full((len(rows), self._length), self._special.pad, np.int64)
        row_of_token = np.broadcast_to(rows[:, None], position.shape)
        ids[row_of_token[inside], position[inside]] = tokens[inside]
        ids[:, 0] = self._special.cls
        ids[rows, first[:, 0] + 1] = self._special.sep
        ids[rows[paired], sizes[paired, 0] + 2] = self._special.sep
        positions = np.arange(self._length)
        mask = positions < sizes + 2 + paired[:, None]
        types = mask & (positions > first + 1)
        return ids, mask, types, np.where(paired, swapped, IGNORED)

    def _mask(self, ids: Ids, tokens: Ids, keys: U64) -> tuple[Ids, Ids, Ids]:
        """Mask tokens; return (masked ids, positions, labels).

        In each row min(max_predictions, max(1, round(rate * tokens))) tokens are chosen, none of
        them special. Whole words and n-grams are taken in a random order, each of them if it still
        fits, so a few tokens less may be chosen.
        """
        ordinary = self._is_ordinary[ids]
        wanted = self.predictions(tokens)
        chosen = self._choose(self._starts(ids, ordinary, keys), ordinary, wanted, keys)

        rows, columns = np.nonzero(chosen)
        counts = chosen.sum(1)
        slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.zeros((len(ids), self._max_predictions), np.int64)
        labels = np.full_like(positions, IGNORED)
        positions[rows, slots] = columns
        labels[rows, slots] = old = ids[rows, columns]

        action = uniform(keys[rows], _REPLACE, columns)
        random = self._ordinary[below(len(self._ordinary), keys[rows], _TOKEN, columns)]
        unmasked = np.where(action < MASKED + REPLACED, random, old)
        masked = ids.copy()
        masked[rows, columns] = np.where(action < MASKED, self._special.mask, unmasked)
        return masked, positions, labels

    def _starts(self, ids: Ids, ordinary: Flags, keys: U64) -> Flags:
        """Return where a unit of masking starts: a token, a word, or an n-gram in one segment."""
        if self._masking == "token":
            return ordinary
        begins = ordinary.copy()  # whether a position is the first behind a special token
        begins[:, 1:] &= ~ordinary[:, :-1]
        words = ordinary & (begins | ~self._continuing[ids])
        if self._masking == "word":
            return words

        draws = uniform(keys[:, None], _WORDS, np.arange(ids.shape[1]))
        n_words = 1 + np.searchsorted(UP_TO_WORDS, draws)
        starts = np.zeros_like(words)
        left: Ids = np.zeros(len(ids), np.int64)  # words that the n-gram still lacks
        for position in range(ids.shape[1]):
            word = words[:, position]
            starts[:, position] = start = word & (begins[:, position] | (left == 0))
            left = np.where(start, n_words[:, position], left) - word
        return starts

    def _choose(self, starts: Flags, ordinary: Flags, wanted: Ids, keys: U64) -> Flags:
        """Return the positions to mask: units from `starts` in random order, each if it fits."""
        positions = np.arange(starts.shape[1])
        rank = np.where(starts, uniform(keys[:, None], _PLACE, positions), 2.0)
        order = np.argsort(rank, axis=1)

        # The start and the size of each position's unit.
        if self._masking == "token":
            start_of, sizes = positions[None], starts.astype(np.int64)
        else:
            start_of = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
            flat = (start_of + np.arange(len(starts))[:, None] * starts.shape[1])[ordinary]
            sizes = np.bincount(flat, minlength=starts.size).reshape(starts.shape)

        taken = np.empty_like(starts)
        np.put_along_axis(taken, order, _fitting(np.take_along_axis(sizes, order, 1), wanted), 1)
        return np.take_along_axis(taken, np.broadcast_to(start_of, starts.shape), 1) & ordinary


def unpadded(examples: Batch, rows: int, predictions: int, pad: int) -> Batch:
    """Return the examples in `rows` rows without padding, and their predictions in as many slots.

    Rows behind the last token hold the token `pad`.
    """
    inside = examples.attention_mask.astype(bool)
    ids, types = np.full(rows, pad, np.int64), np.zeros(rows, np.int64)
    tokens = np.count_nonzero(inside)
    ids[:tokens], types[:tokens] = examples.input_ids[inside], examples.token_type_ids[inside]

    lengths = inside.sum(1)
    starts = np.cumsum(lengths) - lengths
    asked = examples.mlm_labels != IGNORED
    positions, labels = np.zeros(predictions, np.int64), np.full(predictions, IGNORED, np.int64)
    n = np.count_nonzero(asked)
    positions[:n] = (examples.mlm_positions + starts[:, None])[asked]
    labels[:n] = examples.mlm_labels[asked]
    mask = np.ascontiguousarray(examples.attention_mask)
    return Batch(ids, mask, types, positions, labels, np.ascontiguousarray(examples.sop_labels))


def _fitting(sizes: Ids, room: Ids) -> Flags:
    """Return which units are taken in order of `sizes`' columns: each that still fits.

    sizes: (batch, n); 0 for no unit.
    room: (batch), total size of the units of a row, at most.
    """
    sizes = sizes.copy()
    order = np.arange(sizes.shape[1])
    while True:
        filled = np.cumsum(sizes, axis=1)
        over = (sizes > 0) & (filled > room[:, None])
        rows = np.flatnonzero(over.any(1))
        if not len(rows):
            return sizes > 0
        # A unit larger than the room that is left before the first unit too large never fits.
        first = over[rows].argmax(1)
        left = room[rows] - filled[rows, first] + sizes[rows, first]
        sizes[rows] = np.where(
            (order >= first[:, None]) & (sizes[rows] > left[:, None]), 0, sizes[rows]
        )
