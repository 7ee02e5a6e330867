"""The figures of metrics.jsonl in TensorBoard or trackio too, through accelerate's trackers."""

import math
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker

from sqzb import console
from sqzb.errors import UserError

TENSORBOARD, TRACKIO = "tensorboard", "trackio"
PROJECT = "sqzb"  # of trackio

NOT_SENT = {"step", "time"}  # a tracker has a time of its own, and trackio reserves the name

Line = dict[str, Any]  # of metrics.jsonl


def check_trackers(names: Iterable[str]) -> None:
    """Check that the packages of the trackers are installed.

    Raises:
        UserError: a package is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"The tracker {name} is not installed: pip install 'sqzb[{name}]'. Or leave it out "
                "of the recipe's trackers; metrics.jsonl has the same figures."
            )


class Trackers:
    """The trackers of a run's first process.

    A tracker that fails is dropped with a warning, because metrics.jsonl has all figures.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self._names, self._folder = tuple(dict.fromkeys(names)), folder
        self._open: dict[str, GeneralTracker] = {}
        self._sent: set[tuple[int, bool]] = set()

    def begin(self, step: int, dropped: Iterable[Line]) -> None:
        """Open the trackers behind `step`.

        TensorBoard drops its points after the step, which are written again. trackio keeps its
        points, so those that it has are not sent again.

        dropped: the lines that the log has lost, because their steps come again.
        """
        self.close()
        self._sent = {_key(line) for line in dropped}
        for name in self._names:
            tracker = self._tracker(name, step)
            if self._try(name, tracker.start):
                self._open[name] = tracker

    def _tracker(self, name: str, step: int) -> GeneralTracker:
        if name == TENSORBOARD:
            return TensorBoardTracker(TENSORBOARD, self._folder, purge_step=step + 1)
        resume = "allow" if step or self._sent else "never"
        return TrackioTracker(PROJECT, name=str(self._folder), resume=resume)

    def log(self, line: Line) -> None:
        """Send the numbers of a line of metrics.jsonl."""
        if "rolled_back_from" in line or "of_step" in line:
            return  # the step has its figures already; these are another model's
        values = {name: value for name, value in line.items() if _is_number(name, value)}
        for name, tracker in list(self._open.items()):
            if values and (name == TENSORBOARD or _key(line) not in self._sent):
                self._try(name, tracker.log, values, step=line["step"])

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.finish)
        self._open = {}

    def _try(self, name: str, call: Callable[..., Any], *values: Any, **options: Any) -> bool:
        try:
            call(*values, **options)
        except Exception as error:  # of whatever kind: a server's, a disk's, another version's
            self._open.pop(name, None)
            console.warn(
                f"The tracker {name} has failed ({type(error).__name__}: {error}). The run "
                "continues without it; metrics.jsonl has all figures."
            )
            return False
        return True


def _key(line: Line) -> tuple[int, bool]:
    """Return a line's step, and whether the line is of a training step or of an evaluation."""
    return line["step"], "loss" in line


def _is_number(name: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return name not in NOT_SENT and is_number and math.isfinite(value)
