"""The process of a cell: `python -m sqzb.bench.cell_process DESCRIPTOR`."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqzb.bench.cells import Call, Cell, Inputs, Outputs
from sqzb.bench.runtimes import open_cell

Run = Callable[[Inputs], Outputs]


class Server:
    """The answers to the questions of `CellProcess`, which have the same names."""

    _run: Run
    _batches: Sequence[Inputs]

    def open(self, cell: Cell, batches: Sequence[Inputs]) -> None:
        """Open the model and compute each batch once."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cell.cores)
        self._run, self._batches = open_cell(cell), batches
        for inputs in batches:
            self._run(inputs)

    def turn(self) -> list[Call]:
        """Compute each batch once, and return the times."""
        # The other processes of the race have used the caches since the last turn.
        self._run(self._batches[0])
        return [timed(self._run, inputs) for inputs in self._batches]

    def outputs(self, inputs: Inputs) -> Outputs:
        """Return the outputs for a batch."""
        return self._run(inputs)

    def peak(self) -> int | None:
        """Return the peak memory of this process, in bytes."""
        # Not getrusage, whose peak includes the process before exec.
        status = Path("/proc/self/status")
        lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        return peaks[0] if peaks else None


def timed(run: Run, inputs: Inputs) -> Call:
    """Return the times of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    run(inputs)
    return Call(time.perf_counter() - wall, time.process_time() - cpu)


def serve(line: Connection) -> None:
    """Answer questions until the other end is closed."""
    server = Server()
    while True:
        try:
            word, *given = line.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, getattr(server, word)(*given)
        except Exception as error:  # the runtimes raise all kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            answer = False, f"{reason:.300}"
        line.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
