"""Cells of a race of latency: a model in a runtime and a precision, in a process of its own.

Nothing here imports torch or a runtime, so that a cell's peak memory is that of its own runtime.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.export.folder import Precision
from sqzb.export.heads import Head

# Who made the module or the graph: sqzb, or transformers with the general exporters.
Form = Literal["sqzb", "general"]
SQZB: Form = "sqzb"
GENERAL: Form = "general"

Inputs = Mapping[str, NDArray[np.int64]]  # by name, (batch, length)
Outputs = Sequence[NDArray[np.float32]]
LAST_BYTES = 2000  # of a process's messages, for the reason of its end
# Variables by which libraries choose their number of threads.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ALONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # without processes that would stay behind


class Cell(NamedTuple):
    """A model in a runtime and a precision.

    model: name of the model and of its form.
    folder: of the saved model, or of the export.
    inputs: names of the model's inputs.
    cores: numbers of the cores that the process may use; one for each thread.
    is_dynamic: whether the lengths of its inputs differ.
    """

    model: str
    form: Form
    runtime: str
    precision: Precision
    folder: Path
    head: Head
    inputs: tuple[str, ...]
    cores: tuple[int, ...]
    is_dynamic: bool

    @property
    def threads(self) -> int:
        """Number of threads of a computation."""
        return len(self.cores)


class Call(NamedTuple):
    """The time of a call in seconds: on the wall's clock, and of the processor in all threads."""

    wall: float
    cpu: float


class CellFailed(Exception):
    """A cell cannot be measured; the message is the reason."""


class CellProcess:
    """The process of a cell, which answers one question at a time."""

    def __init__(self, cell: Cell) -> None:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        self._line, theirs = Pipe()
        number = str(theirs.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sqzb.bench.cell_process", number],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._messages,
            stderr=self._messages,
            env=os.environ | ALONE | dict.fromkeys(THREADS, str(cell.threads)),
        )
        theirs.close()
        self._cell = cell

    def open(self, batches: Sequence[Inputs]) -> None:
        """Let the process open the model and compute each batch once, without a measurement.

        Raises:
            CellFailed: the runtime does not open the model, or does not compute it.
        """
        self._ask("open", self._cell, batches)

    def turn(self) -> list[Call]:
        """Return the times of one call for each batch.

        Raises:
            CellFailed: a call failed.
        """
        calls: list[Call] = self._ask("turn")
        return calls

    def outputs(self, inputs: Inputs) -> Outputs:
        """Return the outputs for a batch.

        Raises:
            CellFailed: the computation failed.
        """
        outputs: Outputs = self._ask("outputs", inputs)
        return outputs

    def peak_bytes(self) -> int | None:
        """Return the peak memory of the whole process; None where the system has no such number.

        Raises:
            CellFailed: the process has ended.
        """
        peak: int | None = self._ask("peak")
        return peak

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self.kill()
        self._process.wait()
        self._messages.close()

    def kill(self) -> None:
        """End the process at once, whatever it computes."""
        self._process.kill()

    def _ask(self, *question: Any) -> Any:
        try:
            self._line.send(question)
            is_good, answer = self._line.recv()
        except (EOFError, OSError):
            raise CellFailed(self._reason()) from None
        if not is_good:
            raise CellFailed(answer)
        return answer

    def _reason(self) -> str:
        """Return the reason why the process has ended."""
        code = self._process.wait()
        self._messages.seek(0)
        text = self._messages.read()[-LAST_BYTES:].decode("utf-8", "replace")
        last = (text.strip().splitlines() or [""])[-1]
        if code == -signal.SIGKILL:
            return "the system ended its process, as it does where memory is too little"
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {ended}" + (f": {last:.200}" if last else "")
