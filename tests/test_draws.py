"""Draws: functions of their key, spread as they should be, and orders that hold every number
once.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sqzb.draws import Permutation, below, hash64, uniform

keys = st.integers(0, 2**64 - 1)
# The draws are fixed, so a statistic that is in order now stays so: a chance of 1e-4 is no flaky
# test.
UNLIKELY = 1e-4


@given(st.integers(1, 3000), st.lists(keys, max_size=3))
def test_a_permutation_holds_every_number_once(n: int, key: list[int]) -> None:
    assert sorted(Permutation(n, *key)[np.arange(n)].tolist()) == list(range(n))


@given(st.integers(1, 2**40), keys, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_permutation_is_computed_place_by_place(n: int, key: int, places: list[int]) -> None:
    places = [place % n for place in places]
    together = Permutation(n, key)[np.array(places)]
    assert together.tolist() == [int(Permutation(n, key)[place]) for place in places]
    assert ((together >= 0) & (together < n)).all()
    assert len(set(together.tolist())) == len(set(places))


def test_every_order_of_four_is_equally_likely() -> None:
    orders = [tuple(Permutation(4, 7, key)[np.arange(4)].tolist()) for key in range(1200)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > UNLIKELY


def test_every_place_gets_every_number_equally_often() -> None:
    n, orders = 30, 450
    table = np.zeros((n, n))
    for key in range(orders):
        table[np.arange(n), Permutation(n, 3, key)[np.arange(n)]] += 1
    # Rows and columns have fixed sums, which takes 2n-1 degrees of freedom from the table.
    expected = orders / n
    statistic = ((table - expected) ** 2 / expected).sum()
    assert UNLIKELY < stats.chi2.sf(statistic, (n - 1) ** 2) < 1 - UNLIKELY


def test_orders_of_two_epochs_are_independent() -> None:
    n = 20_000
    for seed in range(3):
        one, two = (Permutation(n, seed, epoch)[np.arange(n)] for epoch in (0, 1))
        assert stats.spearmanr(one, two).pvalue > UNLIKELY
        assert (one == two).sum() < 8  # one is to be expected
        assert (np.diff(one) == 1).sum() < 8  # neighbours are parted


@given(keys, keys, st.integers(0, 63))
def test_hashes_depend_on_every_bit_and_on_the_order(a: int, b: int, bit: int) -> None:
    assert hash64(a, b) != hash64(a ^ (1 << bit), b) != hash64(a, b ^ (1 << bit))
    assert a == b or hash64(a, b) != hash64(b, a)
    assert hash64(a) != hash64(a, 0)


@given(st.lists(keys, min_size=1, max_size=5), st.lists(keys, min_size=1, max_size=5))
def test_keys_broadcast(rows: list[int], columns: list[int]) -> None:
    table = hash64(np.array(rows, np.uint64)[:, None], np.array(columns, np.uint64))
    assert table.tolist() == [[int(hash64(row, column)) for column in columns] for row in rows]


def test_one_changed_bit_changes_half_of_the_bits() -> None:
    numbers = np.arange(4000, dtype=np.uint64)
    flipped = (hash64(5, numbers)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(flipped.mean(0) - 0.5).max() < 0.045  # each bit by itself: 5.7 standard deviations
    for bit in range(64):
        changed = np.bitwise_count(hash64(5, numbers) ^ hash64(5, numbers ^ np.uint64(1 << bit)))
        assert abs(changed.mean() - 32) < 0.4


def test_uniform_draws_are_uniform_and_those_of_near_keys_independent() -> None:
    numbers = np.arange(20_000)
    draws = [uniform(seed, numbers, what) for seed in (0, 1) for what in (0, 1)]
    for one in draws:
        assert one.min() >= 0 and one.max() < 1
        assert stats.kstest(one, "uniform").pvalue > UNLIKELY
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.04
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.04


@given(st.integers(1, 2**53), st.lists(keys, min_size=1, max_size=3))
def test_below_is_in_range(n: int, key: list[int]) -> None:
    drawn = below(n, *key, np.arange(50))
    assert drawn.dtype == np.int64 and drawn.min() >= 0 and drawn.max() < n


def test_below_reaches_everything_equally_often() -> None:
    for n in (2, 7, 100):
        counts = np.bincount(below(n, 1, np.arange(200 * n)), minlength=n)
        assert stats.chisquare(counts).pvalue > UNLIKELY
