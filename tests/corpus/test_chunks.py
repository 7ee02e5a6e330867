"""Cutting: all tokens, once, on sentence boundaries wherever a chunk holds a sentence."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sqzb.corpus.chunks import SPECIAL_PLACES, cut

sentence_lengths = st.lists(st.integers(1, 40) | st.integers(1, 5), min_size=1, max_size=60)
lengths = st.integers(8, 40)


def bounds_of(sentences: list[int], first: int) -> list[int]:
    return [first, *(first + np.cumsum(sentences)).tolist()]


@given(sentence_lengths, lengths, st.floats(0, 1), st.integers(0, 10**6), st.integers(0, 2**64 - 1))
def test_chunks_part_the_document_on_sentence_boundaries(
    sentences: list[int], length: int, short: float, first: int, key: int
) -> None:
    bounds = bounds_of(sentences, first)
    starts = cut(bounds, length, short, 1, length, key)
    capacity = length - SPECIAL_PLACES
    assert starts[0] == first
    sizes = np.diff([*starts, bounds[-1]])
    assert (sizes > 0).all() and (sizes <= capacity).all()  # in order and to the end: nothing lost or doubled
    for start in starts:
        if start not in bounds:
            sentence = max(index for index, bound in enumerate(bounds) if bound < start)
            assert bounds[sentence + 1] - bounds[sentence] > capacity


@given(sentence_lengths, lengths, st.integers(0, 2**64 - 1))
def test_without_short_chunks_each_takes_all_that_fits(sentences: list[int], length: int, key: int) -> None:
    bounds = bounds_of(sentences, 0)
    starts = cut(bounds, length, 0.0, key)
    capacity = length - SPECIAL_PLACES
    for start, end in pairwise(starts):
        fitting = [bound for bound in bounds if start < bound <= start + capacity]
        assert end == (fitting[-1] if fitting else start + capacity)


@given(sentence_lengths, lengths, st.floats(0, 1), st.integers(0, 10**6), st.integers(0, 2**64 - 1))
def test_where_a_document_lies_does_not_matter(
    sentences: list[int], length: int, short: float, first: int, key: int
) -> None:
    moved = cut(bounds_of(sentences, first), length, short, key)
    assert [start - first for start in moved] == cut(bounds_of(sentences, 0), length, short, key)


def test_a_share_of_the_chunks_aims_at_every_shorter_length() -> None:
    length, share = 23, 0.3
    sizes = np.concatenate([np.diff(cut(range(2001), length, share, 0, key)) for key in range(30)])
    full = length - SPECIAL_PLACES
    # Sentences are of one token, so a chunk is as long as its aim; one aim of 19 is the full length again.
    counts = np.bincount(sizes, minlength=full + 1)
    assert counts[:2].sum() == 0
    expected = np.full(full - 1, share / (full - 1))
    expected[-1] += 1 - share
    assert stats.chisquare(counts[2:], expected * len(sizes)).pvalue > 1e-4


def test_an_empty_document_has_no_chunks() -> None:
    assert cut([7], 16, 0.1, 0) == []
