"""Parts, pieces and unreadable documents: the terms that all formats share."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from sqzb.recipe import Source

# Bytes. A longer document is damage, and would not fit in memory many times over.
LONGEST_DOCUMENT = 32 * 2**20

# Errors that damaged files raise. UnicodeDecodeError is for the name of a parquet column.
UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)

# Half of a surrogate pair: a careless cut leaves one in JSON, and Python puts one in place of each
# byte of a file name that is not UTF-8. Half a pair is no character and cannot be encoded.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class Part(NamedTuple):
    """A range of a source: of bytes, parquet row groups, Hub shards or Hub rows.

    The order of the fields is that of the lists in units.json.
    """

    path: str
    start: int
    end: int


class Piece(NamedTuple):
    """The smallest part that a format can read by itself."""

    part: Part
    size: int  # bytes of text, or of the compressed file; 0 if unknown


class UnreadableDocument(NamedTuple):
    """A row that could not be read as a document, with its location and the reason.

    It may also stand for all rows to the end of a part that cannot be read further.
    """

    where: str
    why: str
    documents: int = 1  # that are lost; an estimate where a part cannot be read further


Row = str | UnreadableDocument


class FileFormat(Protocol):
    """The two functions of a module that handles a format of local files."""

    def divide(self, file: Path, source: Source, unit_bytes: int) -> Iterator[Piece]:
        """Yield the pieces of the file in order, each of at most `unit_bytes` if possible."""
        ...

    def read(self, part: Part, source: Source) -> Iterator[Row]:
        """Yield the documents of the part in order, and unreadable documents in their place."""
        ...


def missing_column(column: str, columns: list[str]) -> str:
    """Return the reason why rows that have only `columns` are unreadable."""
    there = HALF_CHARACTER.sub("\ufffd", ", ".join(columns)[:500])
    advice = "Name the text column in the source's key `text`"
    return f"has no column {column}; it has {there}. {advice}"
