"""The figures of a race of latency: cells, their calls, and ratios between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sqzb.bench.cells import Call
from sqzb.bench.contestants import Contestant
from sqzb.bench.race import Spread
from sqzb.bench.texts import Source, Texts
from sqzb.export.folder import Precision

LENGTH = 128  # tokens of an input, if no texts are given
Turns = list[list[Call]]


class Wanted(NamedTuple):
    """The race that a user asks for.

    against: the model to compare with; None for none.
    runtimes, precisions: empty for all that this machine has.
    length: tokens of random inputs; None for LENGTH, or where `texts` gives real ones.
    rounds: turns of each cell.
    needs_accuracy: whether a race without accuracy is of no use, as for a picture.
    """

    path: str
    against: str | None = None
    runtimes: Sequence[str] = ()
    precisions: Sequence[str] = ()
    threads: int = 1
    batch: int = 1
    length: int | None = None
    texts: Source | None = None
    rounds: int = 10
    needs_accuracy: bool = False


@dataclass
class Entry:
    """A cell of the race, with its figures.

    texts: number of texts of a turn.
    error: the reason why it was not measured, or not to its end.
    turns: the calls of each round; empty if the cell failed.
    metrics: figures on labelled examples.
    """

    contestant: Contestant
    runtime: str
    precision: Precision
    texts: int
    error: str | None = None
    disk_bytes: int = 0
    peak_bytes: int | None = None
    turns: Turns = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """The runtime and the precision."""
        return self.runtime, self.precision

    @property
    def texts_per_second(self) -> float:
        """Texts a second in the median of the turns."""
        return self.texts / float(np.median(latency(self.turns).turn_ms)) * 1e3

    @property
    def name(self) -> str:
        """The cell in a message, such as `onnx int8, bert-base`."""
        return f"{self.runtime} {self.precision}, {self.contestant.title}"


class Latency(NamedTuple):
    """The figures of a cell's calls, in milliseconds.

    cpu_ms: median of the processor's time, over all threads.
    turn_ms: the sum over the calls of each turn.
    """

    p50_ms: float
    p90_ms: float
    cpu_ms: float
    turn_ms: list[float]


def latency(turns: Turns) -> Latency:
    """Return the figures of one or more turns."""
    wall = np.array([[call.wall for call in turn] for turn in turns]) * 1e3
    cpu = np.array([[call.cpu for call in turn] for turn in turns]) * 1e3
    p50, p90 = np.percentile(wall, [50, 90])
    return Latency(float(p50), float(p90), float(np.median(cpu)), wall.sum(1).tolist())


def times_as_fast(ours: Entry, theirs: Entry) -> Spread:
    """Return how many times as fast our cell is, from the turns of the same rounds."""
    pairs = zip(latency(theirs.turns).turn_ms, latency(ours.turns).turn_ms, strict=True)
    # A turn of each model has as many texts as its batches hold.
    share = ours.texts / theirs.texts
    return Spread.of([share * other / own for other, own in pairs])


class Results(NamedTuple):
    """A race that has been run.

    own, others: the forms of the model, and of the model to compare with.
    flops: floating-point operations of a turn, by the title of a contestant; None: unknown.
    lengths: tokens of the shortest and of the longest input of the model.
    load: average number of busy processes before the race; None if the system does not tell.
    left_out: sentences about runtimes and precisions that this machine lacks.
    """

    wanted: Wanted
    texts: Texts | None
    own: list[Contestant]
    others: list[Contestant]
    flops: Mapping[str, int | None]
    entries: list[Entry]
    lengths: tuple[int, int]
    load: float | None
    left_out: list[str]

    def entries_of(self, contestant: Contestant) -> list[Entry]:
        """Return the cells of a contestant."""
        return [entry for entry in self.entries if entry.contestant is contestant]

    def ceiling(self, own: Contestant, other: Contestant) -> float | None:
        """Return how many times as many operations the other model has; None if it is unknown."""
        ours, theirs = self.flops[own.title], self.flops[other.title]
        return None if ours is None or theirs is None else theirs / ours

    def pairs(self, own: Contestant, other: Contestant) -> list[tuple[Entry, Entry]]:
        """Return the measured cells of two contestants with equal runtime and precision."""
        theirs = {entry.key: entry for entry in self.entries_of(other) if entry.turns}
        ours = [entry for entry in self.entries_of(own) if entry.turns]
        return [(entry, theirs[entry.key]) for entry in ours if entry.key in theirs]
