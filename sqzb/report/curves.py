"""What the pictures show of a run: thinned curves, its colour, its place on a shared axis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.report.runs import PRETRAIN, RunRecord, Series, starts_from

COLOURS = 8  # of the page; more runs share the colour of their data


class Curve(NamedTuple):
    """A curve that was thinned; all arrays are (points).

    lowest, highest: among the figures that a point stands for.
    """

    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


def thinned(series: Series, most: int) -> Curve:
    """Return at most `most` points, each the mean of equally many neighbours, with their bounds."""
    n = len(series.steps)
    if n == 0:
        return Curve(*[np.zeros(0)] * 4)
    starts = np.unique(np.linspace(0, n, min(n, most) + 1).astype(np.int64)[:-1])
    counts = np.diff(np.append(starts, n))
    # The mean of shares: a sum of large figures would not be finite.
    shares = series.values / np.repeat(counts, counts)
    return Curve(
        np.add.reduceat(series.steps, starts) / counts,
        np.add.reduceat(shares, starts),
        np.minimum.reduceat(series.values, starts),
        np.maximum.reduceat(series.values, starts),
    )


def colour_of(records: Sequence[RunRecord]) -> dict[str, int]:
    """Return each run's colour by its name: one each, or one for all runs of a data set."""
    if len(records) <= COLOURS:
        return {run.name: index for index, run in enumerate(records)}
    groups = list(dict.fromkeys((run.kind, run.data) for run in records))
    return {run.name: groups.index((run.kind, run.data)) % COLOURS for run in records}


def offsets(records: Sequence[RunRecord]) -> dict[str, int]:
    """Return by name how many steps the earlier phases of a pretraining run had."""
    earlier_steps: dict[str, int] = {}
    for run in records:
        earlier, current = [run.name], starts_from(run, records)
        before = 0
        while current is not None and current.kind == PRETRAIN and current.name not in earlier:
            before += current.last_step
            earlier.append(current.name)
            current = starts_from(current, records)
        earlier_steps[run.name] = before if run.kind == PRETRAIN else 0
    return earlier_steps
