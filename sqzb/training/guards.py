"""What keeps a run from being lost: signals, steps that are not finite, spikes of the loss, and full disks."""

import os
import shutil
import signal
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sqzb import console
from sqzb.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 1.0  # seconds: what comes sooner is the same signal, from the terminal and once more from torchrun
RECENT, RECENT_LEAST = 100, 20  # losses of which the running median is taken


class Signals:
    """The signal that asked for an end, 0 if none has. A second one, `AGAIN` later, ends the process at once."""

    def __init__(self) -> None:
        self.received, self._at = 0, 0.0

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._at >= AGAIN:
                os._exit(128 + number)
            return
        self.received, self._at = number, time.monotonic()
        name = signal.Signals(number).name
        # Not through the console: a handler may run while it holds its lock.
        os.write(2, f"\n{name}: ending after this step, once it is saved. A second one ends at once.\n".encode())


class Watch:
    """Steps that must not count: those in a row that were not finite, and losses far over the running median."""

    def __init__(self, spike_factor: float | None) -> None:
        self._spike_factor = spike_factor
        self.skipped_in_a_row = 0
        self.left_out: set[int] = set()  # steps that made the loss spike, and were rolled back
        self._recent: deque[float] = deque(maxlen=RECENT)

    def see(self, loss: float, finite: bool) -> bool:
        """Note a step's loss; whether it is a spike."""
        if not finite:
            self.skipped_in_a_row += 1
            return False
        self.skipped_in_a_row = 0
        median = statistics.median(self._recent) if len(self._recent) >= RECENT_LEAST else None
        spike = self._spike_factor is not None and median is not None and loss > self._spike_factor * median
        if not spike:
            self._recent.append(loss)
        return spike

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {
            "skipped_in_a_row": self.skipped_in_a_row,
            "left_out": sorted(self.left_out),
            "recent_losses": list(self._recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The state of a checkpoint; what has been left out since stays so."""
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.left_out |= set(state["left_out"])
        self._recent = deque(state["recent_losses"], maxlen=RECENT)


def check_space(folder: Path, need: int, what: str) -> None:
    """UserError when the disk of `folder`, which need not be there yet, has fewer than `need` bytes free."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(
            f"The disk of {folder} has {console.size(free)} free, and {what} will take {console.size(need)}. Make "
            "room, give another --output, or keep fewer checkpoints."
        )
