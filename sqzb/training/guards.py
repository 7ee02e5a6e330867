"""Guards of a run: caught signals, a monitor of the losses, the check of disk space.

This module does not import torch, because a sweep uses it too.
"""

import os
import shutil
import signal
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from sqzb import console
from sqzb.errors import Stopped, UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds within which a second signal is the same one, sent by the terminal and by torchrun.
AGAIN = 1.0
RECENT, RECENT_LEAST = 100, 20  # losses in the running median, at most and at least


class _Interrupted(BaseException):
    """A signal that ends the work at once.

    It is not an Exception, so that no `except Exception` handles it as an error.
    """


class Signals:
    """The signals that a run has received.

    received: number of the signal that asked for an end; 0 if none has. A second signal, AGAIN
    seconds later, ends the process at once.
    """

    def __init__(self) -> None:
        self.received, self._at = 0, 0.0
        self._end_at_once = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the block runs."""
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def ending_at_once(self, reason: str) -> Iterator[None]:
        """End the block at the first signal, where `caught` alone waits for the end of a step.

        Raises:
            Stopped: a signal came; the message is "NAME: `reason`".
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
            name = signal.Signals(self.received).name
            raise Stopped(f"{name}: {reason}", self.received) from None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._at >= AGAIN:
                os._exit(128 + number)
            return
        self.received, self._at = number, time.monotonic()
        if self._end_at_once:
            raise _Interrupted
        name = signal.Signals(number).name
        # Not by the console, because its lock may be held when a handler runs. Two lines, because
        # a terminal of 80 columns would divide one anywhere.
        note = (
            f"{name}: the run ends after this step, which is saved.\n"
            "A second signal ends the run at once."
        )
        # Ctrl-C also ends the reader of a pipe, such as tee. The step is saved all the same.
        with suppress(OSError):
            os.write(2, f"\n{note}\n".encode())


class LossMonitor:
    """A monitor of the loss: consecutive steps that are not finite, and spikes.

    A spike is a loss above `spike_factor` times the running median. `left_out` holds the steps that
    were rolled back because of a spike.
    """

    def __init__(self, spike_factor: float | None) -> None:
        self._spike_factor = spike_factor
        self.skipped_in_a_row = 0
        self.left_out: set[int] = set()
        self._recent: deque[float] = deque(maxlen=RECENT)

    def note(self, loss: float, finite: bool) -> bool:
        """Record a step's loss, and return whether it is a spike."""
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
        """Return the state that a checkpoint stores."""
        return {
            "skipped_in_a_row": self.skipped_in_a_row,
            "left_out": sorted(self.left_out),
            "recent_losses": list(self._recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint; steps that were left out since then stay left out."""
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.left_out |= set(state["left_out"])
        self._recent = deque(state["recent_losses"], maxlen=RECENT)


def check_space(folder: Path, need: int, content: str) -> None:
    """Check that the disk of `folder`, which need not exist yet, has `need` bytes free.

    content: what will be written, for the message.

    Raises:
        UserError: the disk has less space.
    """
    path = folder.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise UserError(
            f"The disk of {folder} has {console.size(free)} free, and {content} will take "
            f"{console.size(need)}. Free some space, give another --output, or keep fewer "
            "checkpoints."
        )
