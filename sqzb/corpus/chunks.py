"""Documents to chunks: runs of whole sentences of one document that fit a sequence (after BERT and ALBERT)."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sqzb.draws import below, uniform

SPECIAL_PLACES = 3  # [CLS] a [SEP] b [SEP]


def cut(bounds: Sequence[int], length: int, short_seq_prob: float, *keys: int) -> list[int]:
    """Where the chunks of one document start.

    bounds: the token offsets of its sentences' starts, and of its end. A chunk takes whole sentences up to its aim,
    which is `length` less the special tokens or, with `short_seq_prob`, a shorter one drawn under `keys` (BERT's
    create_pretraining_data.py). Unlike there, nothing is cut off: a sentence that would pass the aim starts the next
    chunk, and one longer than any chunk goes on in the next.
    """
    capacity = length - SPECIAL_PLACES
    end = bounds[-1]
    aims = _aims(len(bounds) + (end - bounds[0]) // capacity, capacity, short_seq_prob, *keys)
    starts: list[int] = []
    start = bounds[0]
    while start < end:
        index = bisect_right(bounds, start + int(aims[len(starts)]))
        starts.append(start)
        # A first sentence that alone passes the aim is taken whole if a chunk holds it.
        start = bounds[index - 1] if bounds[index - 1] > start else min(bounds[index], start + capacity)
    return starts


def _aims(count: int, capacity: int, short_seq_prob: float, *keys: int) -> NDArray[np.int64]:
    numbers = np.arange(count)
    short = uniform(*keys, 0, numbers) < short_seq_prob
    return np.where(short, 2 + below(capacity - 1, *keys, 1, numbers), capacity)
