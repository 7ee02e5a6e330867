"""Cutting: all tokens, once, on sentence boundaries wherever a chunk holds the sentence."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from sqzb.corpus.chunks import SPECIAL_PLACES, ChunkBounds, cut, cut_all

sentence_lengths = st.lists(st.integers(1, 40) | st.integers(1, 5), min_size=1, max_size=40)
lengths = st.integers(8, 40)
shares = st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1)
keys = st.integers(0, 2**64 - 1)


class Laid(NamedTuple):
    """Documents, of which some have no sentence, one behind the other."""

    sentences: list[list[int]]  # lengths, by document
    keys: list[int]

    def cut(
        self, length: int, share: float, seed: int, width: type[np.unsignedinteger] = np.uint32
    ) -> ChunkBounds:
        sizes = [sum(document) for document in self.sentences]
        starts = starts_of([n for document in self.sentences for n in document], width)
        return cut_all(
            starts,
            starts_of(sizes, width),
            np.array(self.keys, np.uint64),
            sum(sizes),
            length,
            share,
            seed,
        )


def starts_of(
    sizes: list[int], width: type[np.unsignedinteger] = np.uint32
) -> NDArray[np.unsignedinteger]:
    return np.array([0, *np.cumsum(sizes)], np.int64)[: len(sizes)].astype(width)


laid = st.lists(st.tuples(sentence_lengths | st.just([]), keys), max_size=6).map(
    lambda pairs: Laid([sentences for sentences, _ in pairs], [key for _, key in pairs])
)


def plainly(bounds: list[int], target_lengths: list[int], capacity: int) -> list[int]:
    """What `cut` says it does, looked up bound by bound."""
    starts: list[int] = []
    start = bounds[0]
    while start < bounds[-1]:
        fitting = [
            bound for bound in bounds if start < bound <= start + target_lengths[len(starts)]
        ]
        following = min(bound for bound in bounds if bound > start)
        starts.append(start)
        start = fitting[-1] if fitting else min(following, start + capacity)
    return starts


@given(sentence_lengths, lengths, st.integers(0, 10**6), st.data())
def test_a_chunk_takes_the_sentences_up_to_its_aim(
    sentences: list[int], length: int, first: int, data: st.DataObject
) -> None:
    capacity = length - SPECIAL_PLACES
    most = len(sentences) + sum(sentences) // capacity
    target_lengths = data.draw(st.lists(st.integers(2, capacity), min_size=most, max_size=most))
    bounds = [first, *(first + np.cumsum(sentences)).tolist()]
    assert cut(bounds, target_lengths, capacity) == plainly(bounds, target_lengths, capacity)


@given(laid, lengths, shares, st.integers(0, 2**64 - 1))
def test_chunks_part_the_documents_on_sentence_boundaries(
    all_of: Laid, length: int, share: float, seed: int
) -> None:
    found = all_of.cut(length, share, seed)
    total = sum(map(sum, all_of.sentences))
    chunks = found.bounds.tolist()
    assert found.bounds.dtype == np.uint32 and found.bounds.shape == (len(found.documents), 2)
    # Each begins where the one before ended: all tokens, once and in order.
    assert [0, *(end for _, end in chunks)] == [*(start for start, _ in chunks), total]
    assert all(0 < end - start <= length - SPECIAL_PLACES for start, end in chunks)

    ends = np.cumsum([sum(document) for document in all_of.sentences])
    of_document = [
        np.searchsorted(ends, (start, end - 1), side="right").tolist() for start, end in chunks
    ]
    assert of_document == [[document, document] for document in found.documents.tolist()]

    bounds = [0, *np.cumsum([n for document in all_of.sentences for n in document]).tolist()]
    for start, _ in chunks:
        begun = max(bound for bound in bounds if bound <= start)
        after = min(bound for bound in bounds if bound > start)
        assert start == begun or after - begun > length - SPECIAL_PLACES


@given(laid, lengths, shares, st.integers(0, 2**64 - 1))
def test_where_a_document_lies_does_not_matter(
    all_of: Laid, length: int, share: float, seed: int
) -> None:
    together = all_of.cut(length, share, seed)
    first = 0
    for number, (sentences, key) in enumerate(zip(*all_of, strict=True)):
        alone = Laid([sentences], [key]).cut(length, share, seed)
        assert (
            together.bounds[together.documents == number] - np.uint32(first)
        ).tolist() == alone.bounds.tolist()
        first += sum(sentences)


@given(laid, lengths, st.sampled_from([np.uint16, np.uint32, np.uint64]))
def test_without_shorter_target_lengths_each_document_is_cut_by_itself(
    all_of: Laid, length: int, width: type[np.unsignedinteger]
) -> None:
    capacity = length - SPECIAL_PLACES
    expected, first = [], 0
    for sentences in all_of.sentences:
        bounds = [first, *(first + np.cumsum(sentences)).astype(int).tolist()]
        starts = cut(bounds, [capacity] * sum(sentences), capacity)
        expected += list(map(list, pairwise([*starts, bounds[-1]]))) if starts else []
        first = bounds[-1]
    assert all_of.cut(length, 0.0, 0, width).bounds.tolist() == expected


def test_a_sentence_longer_than_a_chunk_goes_on_in_the_next() -> None:
    found = Laid([[3, 30, 4, 2]], [0]).cut(13, 0.0, 0)
    # The long sentence fills three chunks exactly, so the next chunk starts with a sentence.
    assert found.bounds.tolist() == [[0, 3], [3, 13], [13, 23], [23, 33], [33, 39]]
    assert Laid([[25, 4, 2]], [0]).cut(13, 0.0, 0).bounds.tolist() == [
        [0, 10],
        [10, 20],
        [20, 29],
        [29, 31],
    ]


def test_a_share_of_the_chunks_aims_at_every_shorter_length() -> None:
    length, share, documents, each = 23, 0.3, 60, 50
    # Sentences have one token, so a chunk is as long as its target length, unless the document
    # ends; the first chunks of each document are not at its end.
    found = Laid([[1] * (each * 20)] * documents, list(range(documents))).cut(length, share, 0)
    sizes = np.diff(found.bounds.astype(int))[:, 0]
    sizes = np.concatenate([sizes[found.documents == number][:each] for number in range(documents)])
    full = length - SPECIAL_PLACES
    counts = np.bincount(sizes, minlength=full + 1)
    assert counts[:2].sum() == 0
    # One target length of 19 is the full length again.
    expected = np.full(full - 1, share / (full - 1))
    expected[-1] += 1 - share
    assert stats.chisquare(counts[2:], expected * len(sizes)).pvalue > 1e-4


def test_target_lengths_are_drawn_under_key_seed_and_length() -> None:
    def sizes(key: int, seed: int, length: int) -> list[int]:
        bounds = Laid([[1] * 300], [key]).cut(length, 1.0, seed).bounds.tolist()
        return [end - start for start, end in bounds]

    assert sizes(1, 2, 20) == sizes(1, 2, 20)
    assert (
        len({tuple(sizes(*which)) for which in ((1, 2, 20), (2, 2, 20), (1, 3, 20), (1, 2, 21))})
        == 4
    )


@pytest.mark.parametrize("documents", [0, 1, 3])
def test_without_tokens_there_are_no_chunks(documents: int) -> None:
    found = Laid([[]] * documents, list(range(documents))).cut(16, 0.1, 0)
    assert found.bounds.shape == (0, 2) and found.documents.shape == (0,)
    assert cut([7], [], 13) == []
