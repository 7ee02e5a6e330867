"""Races in turns, and the spread of what they measure."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def race(
    contestants: Mapping[Name, Callable[[int], Result]], rounds: int
) -> dict[Name, list[Result]]:
    """Call every contestant once a round, in turn, and return the results of each, by round.

    Whatever slows the machine down for a while then slows all contestants down, and not one of
    them. A contestant is called with the number of the round, from 0.
    """
    results: dict[Name, list[Result]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            results[name].append(measure(number))
    return results


class Spread(NamedTuple):
    """The middle of several values, with the lowest and the highest."""

    middle: float
    lowest: float
    highest: float

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        middle: Callable[[Sequence[float]], float] = statistics.median,
    ) -> "Spread":
        """The spread of one value or more; middle: the median, or another mean of them."""
        return cls(middle(values), min(values), max(values))

    def text(self, form: str, scale: float = 1) -> str:
        """Write it as `12.3 (11.9 to 13.0)`, each number by a format such as `.1f`, after `scale`."""
        return f"{self.middle * scale:{form}} ({self.ends(form, scale)})"

    def ends(self, form: str, scale: float = 1) -> str:
        """Write its ends alone, as `11.9 to 13.0`."""
        return f"{self.lowest * scale:{form}} to {self.highest * scale:{form}}"
