"""A .npy file that grows row by row, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sqzb.errors import UserError
from sqzb.files import whole_file

NPY = ".npy"


class ArrayWriter:
    """An open .npy file of float32 (rows, width)."""

    def __init__(self, file: IO[bytes], width: int) -> None:
        self._file, self._width = file, width
        self._rows = 0
        self._write_header()

    def write(self, rows: NDArray[np.float32]) -> None:
        """Append rows (n, width)."""
        self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
        self._rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves space for a first axis that grows, so all headers have one length.
        shape = (self._rows, self._width)
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": shape}
        write = np.lib.format.write_array_header_1_0
        write(self._file, header)  # type: ignore[no-untyped-call]


def check_ending(path: Path) -> None:
    """Raise UserError if the file's ending is not .npy."""
    if path.suffix != NPY:
        raise UserError(f"{path} has not the ending {NPY}. Give an --output such as vectors{NPY}.")


@contextmanager
def open_array(path: Path, width: int) -> Iterator[ArrayWriter]:
    """Yield a writer; the file appears when the block ends without an error.

    Raises:
        UserError: The ending is not .npy.
        OSError: The file cannot be written.
    """
    check_ending(path)
    with whole_file(path) as aside, aside.open("wb") as file:
        writer = ArrayWriter(file, width)
        yield writer
        writer.finish()
