"""Rows with named columns, and where they are: the terms that all formats share."""

import difflib
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from sqzb.errors import UserError

# Characters, or bytes of a cell. A longer line is damage, or a quote that nothing closes.
LONGEST = 32 * 2**20

# Errors that damaged files raise; UnicodeDecodeError is for texts in parquet.
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
    UnicodeDecodeError,
)


class Row(NamedTuple):
    """A row of a table.

    number  the line of the file where the row begins, or the row's number; both count from 1
    values  by column
    """

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows with named columns. They are read as a stream, so memory use is bounded.

    path     of the file, or hub:owner/name; for messages
    columns  names in the file's order
    unit     meaning of a row's number
    read     opens the stream at its first row. It takes the wanted columns, and formats that
             store columns apart read no others.
    commit   of a Hub data set, which stands for its content; empty for files
    """

    path: str
    columns: tuple[str, ...]
    unit: Literal["line", "row"]
    read: Callable[[Sequence[str]], Iterator[Row]]
    commit: str = ""

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield the rows in order.

        columns: the wanted columns, all by default. A row may have others too.

        Raises:
            UserError: A row breaks the format's rules, or the file is damaged.
        """
        number = 0
        try:
            for row in self.read(self.columns if columns is None else columns):
                number = row.number
                yield row
        except UNREADABLE as error:
            behind = f"behind {self.where(number)}" if number else "at its first row"
            raise damaged(self.path, error, behind) from error

    def where(self, row: Row | int) -> str:
        """Return FILE:12, or FILE, row 12."""
        number = row if isinstance(row, int) else row.number
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}, row {number:,}"


def damaged(path: str, error: BaseException, where: str = "") -> UserError:
    """Return the error for a file that cannot be read, or cannot be read further."""
    reason = getattr(error, "strerror", None) or error
    return UserError(
        f"{path} cannot be read{' further ' + where if where else ''} ({reason}). "
        "Check the path and the file's rights, or get the file again."
    )


def check_columns(path: str, columns: Sequence[str], line: int | None = 1) -> None:
    """Check that columns have different names.

    line: of the header; None where there is no such line.

    Raises:
        UserError: Two columns have one name.
    """
    where = path if line is None else f"{path}:{line}"
    first_of: dict[str, int] = {}
    for index, name in enumerate(columns):
        first = first_of.setdefault(name, index) + 1
        if first <= index:
            both = f"columns {first} and {index + 1} are both called {name!r}"
            if not name:
                both = f"columns {first} and {index + 1} have no name"
            raise UserError(
                f"{where}: {both}. Give each column a name of its own.{header_hint(columns)}"
            )


def header_hint(columns: Sequence[str]) -> str:
    """Return advice for a first line that looks like data; nothing if it looks like a header."""
    looks_like_data = any(
        len(name) > 60 or len(name.split()) > 5 or _is_number(name) for name in columns
    )
    if not looks_like_data:
        return ""
    return (
        " The first line looks like data: if the file has no header, add a first line with the "
        "columns' names, such as text and label."
    )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def missing_column(path: str, name: str, columns: Sequence[str], option: str) -> UserError:
    """Return the error for a column that is not there, with the nearest names.

    option: the option that names the column.
    """
    lowered = {column.strip().lower(): column for column in columns}
    near = difflib.get_close_matches(name.strip().lower(), list(lowered), n=3, cutoff=0.6)
    nearest = " or ".join(repr(lowered[match]) for match in near)
    meant = f" Did you mean {nearest}?" if nearest else ""
    return UserError(
        f"{path} has no column {name!r}.{meant} Its columns are {listed(columns)}. "
        f"Name the column with {option}.{header_hint(columns)}"
    )


def one_line(text: str) -> str:
    """Return text with one space for all white space, line ends too."""
    return " ".join(text.split())


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between, the first `most` of them."""
    shown = ", ".join(repr(name if len(name) <= 60 else f"{name[:59]}…") for name in names[:most])
    more = len(names) - most
    return f"{shown} and {more:,} more" if more > 0 else shown or "none"
