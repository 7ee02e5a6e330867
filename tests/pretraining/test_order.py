"""The order: every chunk once an epoch, a function of (seed, step) alone, whatever the size of a
step.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from examples import scaled
from sqzb.pretraining.order import samples_of_step

chunk_counts = st.integers(1, 60)
batches = st.integers(1, 3) | st.integers(4, 100)
seeds = st.integers(0, 2**64 - 1)
UNLIKELY = 1e-4  # the draws are fixed, so this is no flaky test


def stream(n_samples: int, global_batch: int, n_chunks: int, seed: int) -> list[tuple[int, int]]:
    """The first samples of a run as (epoch, chunk)."""
    steps = [
        samples_of_step(step, global_batch, n_chunks, seed)
        for step in range(-(-n_samples // global_batch))
    ]
    return [
        (int(e), int(c)) for epochs, chunks in steps for e, c in zip(epochs, chunks, strict=True)
    ][:n_samples]


@settings(max_examples=scaled(15))
@given(chunk_counts, batches, seeds)
def test_every_chunk_comes_once_an_epoch(n_chunks: int, global_batch: int, seed: int) -> None:
    samples = stream(3 * n_chunks, global_batch, n_chunks, seed)
    for epoch in range(3):
        part = samples[epoch * n_chunks : (epoch + 1) * n_chunks]
        assert sorted(part) == [(epoch, chunk) for chunk in range(n_chunks)]


@settings(max_examples=scaled(15))
@given(chunk_counts, batches, batches, seeds)
def test_the_size_of_a_step_does_not_change_the_stream(
    n_chunks: int, one: int, other: int, seed: int
) -> None:
    assert stream(80, one, n_chunks, seed) == stream(80, other, n_chunks, seed)


@settings(max_examples=scaled(15))
@given(chunk_counts, batches, seeds, st.lists(st.integers(0, 10**6), min_size=2, max_size=6))
def test_a_step_is_the_same_whatever_came_before(
    n_chunks: int, global_batch: int, seed: int, steps: list[int]
) -> None:
    there = [samples_of_step(step, global_batch, n_chunks, seed) for step in steps]
    back = [samples_of_step(step, global_batch, n_chunks, seed) for step in reversed(steps)]
    for one, other in zip(there, reversed(back), strict=True):
        assert np.array_equal(one, other) and one[0].shape == one[1].shape == (global_batch,)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        tuple(chunk for _, chunk in stream(4000, 64, 1000, seed)[epoch * 1000 : (epoch + 1) * 1000])
        for seed in (0, 1)
        for epoch in range(4)
    ]
    assert len(set(orders)) == 8 and tuple(range(1000)) not in orders


def test_every_order_is_equally_likely_and_says_nothing_of_the_next() -> None:
    """Over 3,000 seeds: all 24 orders of 4 chunks, and where a chunk stands in two epochs after
    each other.
    """
    orders = [samples_of_step(0, 8, 4, seed)[1].reshape(2, 4) for seed in range(3000)]
    ranks = np.array([[order @ (64, 16, 4, 1) for order in pair] for pair in orders])
    for epoch in range(2):
        counts = np.unique(ranks[:, epoch], return_counts=True)[1]
        assert len(counts) == 24 and stats.chisquare(counts).pvalue > UNLIKELY
    together = np.zeros((4, 4))
    for first, second in orders:
        together[np.argmax(first == 0), np.argmax(second == 0)] += 1
    assert stats.chi2_contingency(together).pvalue > UNLIKELY


def test_a_chunk_stands_anywhere_in_a_large_epoch() -> None:
    n_chunks = 5000  # no power of two: the numbers that are walked over must not leave a trace
    places = [np.argsort(samples_of_step(0, n_chunks, n_chunks, seed)[1]) for seed in range(20)]
    table = np.array(
        [np.bincount(place[:1000] // 500, minlength=10) for place in places]
    )  # of the first chunks
    assert stats.chisquare(table.sum(0)).pvalue > UNLIKELY


def test_a_step_far_into_the_largest_run_costs_nothing() -> None:
    epochs, chunks = samples_of_step(55_999, 8192, 30_000_000, 0)
    assert set(epochs.tolist()) == {15} and len(set(chunks.tolist())) == 8192
