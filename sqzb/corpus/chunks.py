"""Documents to chunks: runs of whole sentences of one document that fit a sequence (after BERT and ALBERT)."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.draws import U64, below, uniform

SPECIAL_PLACES = 3  # [CLS] a [SEP] b [SEP]


class ChunkBounds(NamedTuple):
    """The chunks of many documents, in their order."""

    bounds: NDArray[np.uint32]  # (n, 2) token offsets of start and end
    documents: NDArray[np.int64]  # (n) of which document each is


def cut_all(
    sentences: NDArray[np.unsignedinteger[Any]],
    documents: NDArray[np.unsignedinteger[Any]],
    keys: U64,
    n_tokens: int,
    length: int,
    short_seq_prob: float,
    seed: int,
) -> ChunkBounds:
    """Cut documents that lie one behind the other.

    sentences, documents: the token offsets of their starts; keys: a number that stands for each document's text, under
    which its random lengths are drawn, so that these depend on nothing else.
    """
    if n_tokens == 0:
        return ChunkBounds(np.zeros((0, 2), np.uint32), np.zeros(0, np.int64))
    starts, stops = documents.astype(np.int64), np.append(documents[1:], n_tokens).astype(np.int64)
    first, last = np.searchsorted(sentences, starts), np.searchsorted(sentences, stops)
    capacity = length - SPECIAL_PLACES
    at_most = last - first + (stops - starts) // capacity  # each chunk starts a sentence or goes on with one
    target_lengths = _target_lengths(at_most, keys, capacity, short_seq_prob, seed, length).tolist()
    target_starts = (np.cumsum(at_most) - at_most).tolist()
    all_sentences = sentences.tolist()
    found = [
        cut([*all_sentences[low:high], stop], target_lengths[target : target + n], capacity)
        for low, high, stop, target, n in zip(
            first.tolist(), last.tolist(), stops.tolist(), target_starts, at_most.tolist(), strict=True
        )
    ]
    counts = np.fromiter(map(len, found), np.int64, len(found))
    chunk_starts = np.array([start for document in found for start in document], np.uint32)
    chunk_ends = np.append(chunk_starts[1:], np.uint32(n_tokens))
    # The offsets of a document without tokens are those of the next, so that the next start is always an end.
    return ChunkBounds(np.stack([chunk_starts, chunk_ends], axis=1), np.repeat(np.arange(len(found)), counts))


def cut(bounds: Sequence[int], target_lengths: Sequence[int], capacity: int) -> list[int]:
    """Where the chunks of one document start.

    bounds: the token offsets of its sentences' starts, and of its end. A chunk takes whole sentences up to its target
    length. Unlike in BERT, nothing is cut off: a sentence that would pass the target length starts the next chunk, and
    one longer than any chunk goes on in the next.
    """
    end = bounds[-1]
    starts: list[int] = []
    start = bounds[0]
    while start < end:
        index = bisect_right(bounds, start + target_lengths[len(starts)])
        starts.append(start)
        # A first sentence that alone passes the target length is taken whole if a chunk holds it.
        start = bounds[index - 1] if bounds[index - 1] > start else min(bounds[index], start + capacity)
    return starts


def _target_lengths(
    counts: NDArray[np.int64], keys: U64, capacity: int, short_seq_prob: float, seed: int, length: int
) -> NDArray[np.int64]:
    """So many target lengths for each document: the capacity or, with `short_seq_prob`, fewer tokens, as in BERT's
    create_pretraining_data.py."""
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    of = seed, length, np.repeat(keys, counts)
    short = uniform(*of, 0, number) < short_seq_prob
    return np.where(short, 2 + below(capacity - 1, *of, 1, number), capacity)
