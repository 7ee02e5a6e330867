"""What guards a run: caught signals, a monitor of the losses, the room on the disk.

This module does not import torch: a sweep uses it too.
"""

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
from sqzb.errors import Stopped, UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds: what comes sooner is the same signal, from the terminal and once more from torchrun.
AGAIN = 1.0
RECENT, RECENT_LEAST = 100, 20  # losses of which the running median is taken


class _Interrupted(BaseException):
    """A signal that ends the work at once. No `except Exception` may take it for an error."""


class Signals:
    """The signal that asked for an end, 0 if none has.

    A second signal, `AGAIN` later, ends the process at once.
    """

    def __init__(self) -> None:
        self.received, self._at = 0, 0.0
        self._end_at_once = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def ending_at_once(self, what: str) -> Iterator[None]:
        """End the block at the first signal, where `caught` alone waits for the end of a step.

        Raises:
            Stopped: with the sentence "NAME: `what`".
        """
        try:
            try:
                self._end_at_once = True
                if self.received:
                    raise _Interrupted
                yield
            finally:
                self._end_at_once = False
        except _Interrupted:
            raise Stopped(f"{signal.Signals(self.received).name}: {what}", self.received) from None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._at >= AGAIN:
                os._exit(128 + number)
            return
        self.received, self._at = number, time.monotonic()
        if self._end_at_once:
            raise _Interrupted
        name = signal.Signals(number).name
        # Not through the console: a handler may run while it holds its lock.
        note = f"{name}: ending after this step, once it is saved. A second one ends at once."
        os.write(2, f"\n{note}\n".encode())


class LossMonitor:
    """Finds steps that must not count: non-finite ones in a row, and spikes of the loss.

    A spike is a loss far over the running median.
    """

    def __init__(self, spike_factor: float | None) -> None:
        self._spike_factor = spike_factor
        self.skipped_in_a_row = 0
        self.left_out: set[int] = set()  # steps that made the loss spike and were rolled back
        self._recent: deque[float] = deque(maxlen=RECENT)

    def note(self, loss: float, finite: bool) -> bool:
        """Note a step's loss, and return whether it is a spike."""
        if not finite:
            self.skipped_in_a_row += 1
            return False
        self.skipped_in_a_row = 0
        median = statistics.median(self._recent) if len(self._recent) >= RECENT_LEAST else None
        spike = (
            self._spike_factor is not None
            and median is not None
            and loss > self._spike_factor * median
        )
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
    """UserError when the disk of `folder` has fewer than `need` bytes free.

    The folder need not exist yet.
    """
    there = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(
            f"The disk of {folder} has {console.size(free)} free, and {what} will take "
            f"{console.size(need)}. Make room, give another --output, or keep fewer checkpoints."
        )
