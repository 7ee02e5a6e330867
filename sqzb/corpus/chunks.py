"""Division of documents into chunks: whole sentences of one document that together fit a sequence.

The method is that of BERT and ALBERT.
"""

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
    documents: NDArray[np.int64]  # (n) index of each chunk's document


def cut_all(
    sentences: NDArray[np.unsignedinteger[Any]],
    documents: NDArray[np.unsignedinteger[Any]],
    keys: U64,
    n_tokens: int,
    length: int,
    short_seq_prob: float,
    seed: int,
) -> ChunkBounds:
    """Cut consecutive documents into chunks.

    Args:
        sentences: (n_sentences) token offset of each sentence's start.
        documents: (n_documents) token offset of each document's start.
        keys: (n_documents) a hash of each document's text. The random target lengths of a
            document are drawn under its key, so they depend on no other document.
        n_tokens: tokens of all documents.
        length: positions of a sequence, those of special tokens included.
        short_seq_prob: chance that a chunk has a shorter target length.
        seed: seed of the target lengths.
    """
    if n_tokens == 0:
        return ChunkBounds(np.zeros((0, 2), np.uint32), np.zeros(0, np.int64))

    # Tokens `starts[i]` to `stops[i]`, and sentences `first[i]` to `last[i]`, are document i.
    starts = documents.astype(np.int64)
    stops = np.append(documents[1:], n_tokens).astype(np.int64)
    first = np.searchsorted(sentences, starts)
    last = np.searchsorted(sentences, stops)

    # A chunk starts with a sentence or continues one, so a document has no more chunks than this.
    capacity = length - SPECIAL_PLACES
    at_most = last - first + (stops - starts) // capacity
    target_lengths = _target_lengths(at_most, keys, capacity, short_seq_prob, seed, length).tolist()
    target_stops = np.cumsum(at_most)
    target_starts = target_stops - at_most

    all_sentences = sentences.tolist()
    rows = np.stack([first, last, stops, target_starts, target_stops], axis=1).tolist()
    chunk_starts: list[int] = []
    counts: list[int] = []
    for low, high, stop, target_start, target_stop in rows:
        bounds = [*all_sentences[low:high], stop]
        of_document = cut(bounds, target_lengths[target_start:target_stop], capacity)
        chunk_starts += of_document
        counts.append(len(of_document))

    # A chunk ends where the next one starts, also from document to document: a document without
    # tokens has no chunks, and its offset is that of the next document.
    chunk_stops = [*chunk_starts[1:], n_tokens]
    return ChunkBounds(
        np.stack([chunk_starts, chunk_stops], axis=1).astype(np.uint32),
        np.repeat(np.arange(len(counts)), counts),
    )


def cut(bounds: Sequence[int], target_lengths: Sequence[int], capacity: int) -> list[int]:
    """Return where the chunks of one document start.

    A chunk takes whole sentences up to its target length. Unlike in BERT, no token is cut off: a
    sentence that would exceed the target length starts the next chunk, and a sentence that is
    longer than any chunk continues in the next chunk.

    Args:
        bounds: (n_sentences + 1) token offsets of the sentences' starts, and of the document's end.
        target_lengths: tokens of each chunk, as many as there can be chunks.
        capacity: tokens of a full chunk.
    """
    end = bounds[-1]
    starts: list[int] = []
    start = bounds[0]
    while start < end:
        starts.append(start)
        next_bound = bisect_right(bounds, start + target_lengths[len(starts) - 1])
        stop = bounds[next_bound - 1]
        if stop <= start:
            # No sentence ends within the target length. The chunk takes this one whole if it fits.
            stop = min(bounds[next_bound], start + capacity)
        start = stop
    return starts


def _target_lengths(
    counts: NDArray[np.int64],
    keys: U64,
    capacity: int,
    short_seq_prob: float,
    seed: int,
    length: int,
) -> NDArray[np.int64]:
    """Return `counts[i]` target lengths for each document i, one document after the other.

    A target length is `capacity` or, with `short_seq_prob`, drawn from 2 to `capacity`, as in
    BERT's create_pretraining_data.py.
    """
    number_of_first = np.cumsum(counts) - counts
    number = np.arange(counts.sum()) - np.repeat(number_of_first, counts)  # in the document, from 0
    key = seed, length, np.repeat(keys, counts)
    is_short = uniform(*key, 0, number) < short_seq_prob
    return np.where(is_short, 2 + below(capacity - 1, *key, 1, number), capacity)
