"""Races are in turns, and a spread is the middle with both ends."""

import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.bench.race import Spread, race

numbers = st.floats(-1e6, 1e6)


def test_contestants_take_turns_in_every_round() -> None:
    called: list[tuple[str, int]] = []

    def contestant(name: str) -> Callable[[int], str]:
        def measure(number: int) -> str:
            called.append((name, number))
            return f"{name}{number}"

        return measure

    results = race({name: contestant(name) for name in "ab"}, rounds=3)
    assert called == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert results == {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"]}


def test_without_a_round_nobody_is_called() -> None:
    assert race({"a": lambda number: pytest.fail("called")}, rounds=0) == {"a": []}


@given(st.lists(numbers, min_size=1))
def test_a_spread_has_the_median_between_the_ends(values: list[float]) -> None:
    spread = Spread.of(values)
    ordered = sorted(values)
    assert (spread.lowest, spread.highest) == (ordered[0], ordered[-1])
    assert spread.middle == statistics.median(values)
    assert spread.lowest <= spread.middle <= spread.highest


def test_another_middle_is_taken_where_it_is_given() -> None:
    assert Spread.of([1.0, 2.0, 6.0], statistics.fmean) == Spread(3.0, 1.0, 6.0)


@pytest.mark.parametrize(
    ("form", "scale", "text"),
    [
        (".1f", 1, "0.5 (-0.2 to 0.8)"),
        ("+.1f", 100, "+50.0 (-25.0 to +75.0)"),
        (".1%", 1, "50.0% (-25.0% to 75.0%)"),
        (",.0f", 1e4, "5,000 (-2,500 to 7,500)"),
    ],
)
def test_a_spread_is_written_by_its_format(form: str, scale: float, text: str) -> None:
    spread = Spread(0.5, -0.25, 0.75)
    assert spread.text(form, scale) == text
    assert spread.ends(form, scale) == text.split("(")[1].removesuffix(")")
