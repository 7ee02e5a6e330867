"""Races between contestants that take turns, and the spread of their results."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def race(
    contestants: Mapping[Name, Callable[[int], Result]], rounds: int
) -> dict[Name, list[Result]]:
    """Call every contestant once in each round, and return the results of each, by round.

    A temporary slowdown of the machine then affects all contestants, not one of them. A contestant
    is called with the number of the round, from 0.
    """
    results: dict[Name, list[Result]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            results[name].append(measure(number))
    return results


class Spread(NamedTuple):
    """The middle, the lowest and the highest of several values."""

    middle: float
    lowest: float
    highest: float

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        middle: Callable[[Sequence[float]], float] = statistics.median,
    ) -> "Spread":
        """Return the spread of one or more values.

        middle: the function that computes the middle, by default the median.
        """
        return cls(middle(values), min(values), max(values))

    def text(self, form: str, scale: float = 1) -> str:
        """Return text such as `12.3 (11.9 to 13.0)`.

        form: format of each number, such as `.1f`.
        scale: factor of each number.
        """
        return f"{self.middle * scale:{form}} ({self.ends(form, scale)})"

    def ends(self, form: str, scale: float = 1) -> str:
        """Return the ends alone, as `11.9 to 13.0`; arguments as of `text`."""
        return f"{self.lowest * scale:{form}} to {self.highest * scale:{form}}"
