"""The order: every example once an epoch, in batches of similar lengths, a function of seed
and step alone.
"""

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from examples import scaled
from sqzb.finetuning.order import POOL, Order

lengths = st.lists(st.integers(3, 128), min_size=1, max_size=300)
batches = st.integers(1, 40)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 5)
UNLIKELY = 1e-4  # the draws are fixed, so this is no flaky test


def epoch_of(order: Order, epoch: int) -> list[NDArray[np.int64]]:
    n = order.batches_per_epoch
    return [order.rows_of_step(step) for step in range(epoch * n, (epoch + 1) * n)]


@given(lengths, batches, seeds, epochs)
@example([5], 16, 0, 0)
@example([5] * 32, 16, 0, 0)
def test_an_epoch_has_every_example_once_and_only_its_last_batch_is_smaller(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    rows = epoch_of(Order(lengths, batch, seed), epoch)
    assert [len(part) for part in rows[:-1]] == [batch] * (len(rows) - 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(lengths)))


@given(lengths, batches, seeds, st.lists(st.integers(0, 10**6), min_size=2, max_size=6))
@settings(max_examples=scaled(15))
def test_a_step_is_the_same_whatever_came_before(
    lengths: list[int], batch: int, seed: int, steps: list[int]
) -> None:
    one, other = Order(lengths, batch, seed), Order(lengths, batch, seed)
    there, back = (
        [order.rows_of_step(s) for s in part]
        for order, part in ((one, steps), (other, steps[::-1]))
    )
    assert all(np.array_equal(a, b) for a, b in zip(there, reversed(back), strict=True))


@given(lengths, batches, seeds, epochs)
def test_the_lengths_of_a_pools_batches_do_not_overlap(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    """Of at most POOL full batches, which are one pool: each is wholly before or behind each
    other, by length.
    """
    lengths = lengths[: POOL * batch]
    full = [part for part in epoch_of(Order(lengths, batch, seed), epoch) if len(part) == batch]
    bounds = sorted((min(of), max(of)) for of in ([lengths[row] for row in part] for part in full))
    assert all(before[1] <= behind[0] for before, behind in pairwise(bounds))


def places(rows: list[NDArray[np.int64]], lengths: NDArray[np.int64]) -> int:
    """What a model computes for the batches, padding included."""
    return sum(int(len(part) * lengths[part].max()) for part in rows)


@given(st.integers(1, 12), seeds)
@settings(max_examples=scaled(10))
def test_padding_is_less_than_in_a_random_order(batch: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    n = 40 * batch + int(draw.integers(batch))
    lengths = draw.integers(3, 100, n)
    sorted_in_pools = places(epoch_of(Order(lengths, batch, seed), 0), lengths)
    random = places(np.split(draw.permutation(n), range(batch, n, batch)), lengths)
    least = places(np.split(np.argsort(lengths), range(batch, n, batch)), lengths)
    assert least <= sorted_in_pools <= random
    assert batch < 3 or sorted_in_pools - lengths.sum() < (random - lengths.sum()) / 3


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 1000)
    orders = {
        tuple(np.concatenate(epoch_of(Order(lengths, 16, seed), epoch)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_long_examples_come_at_any_time_of_an_epoch() -> None:
    """The longest batch of an epoch stands anywhere in it, and any length may be in the
    smaller last one.
    """
    lengths = np.arange(3, 103)  # 12 batches of 8 and one of 4
    where, last = np.zeros(12), np.zeros(4)
    for seed in range(400):
        rows = epoch_of(Order(lengths, 8, seed), 0)
        where[np.argmax([lengths[part].max() for part in rows[:-1]])] += 1
        last += np.bincount(rows[-1] // 25, minlength=4)
    assert stats.chisquare(where).pvalue > UNLIKELY
    assert stats.chisquare(last).pvalue > UNLIKELY
