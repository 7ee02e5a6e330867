"""Parquet files: a document a row, in the column that the source's key `text` names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.console import counted
from sqzb.corpus.formats.common import (
    LONGEST_DOCUMENT,
    UNREADABLE,
    Part,
    Piece,
    Row,
    UnreadableDocument,
    missing_column,
)
from sqzb.recipe import Source

ROWS_AT_ONCE = 64


def divide(file: Path, source: Source, unit_bytes: int) -> Iterator[Piece]:
    """Yield the row groups of the file."""
    try:
        metadata = _open(file).metadata
    except UNREADABLE:  # reading the piece will report the error
        yield Piece(Part(str(file), 0, 1), file.stat().st_size)
        return
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).total_byte_size
        yield Piece(Part(str(file), group, group + 1), size)


def read(part: Part, source: Source) -> Iterator[Row]:
    """Yield the rows of the part's row groups. A null is an empty document."""
    opened = _open(part.path)
    reason = _why_unreadable(opened.schema_arrow, source.text)
    rows = _rows_of_groups(opened)
    if reason is not None:
        yield UnreadableDocument(part.path, reason, max(1, sum(rows[part.start : part.end])))
        return
    first = sum(rows[: part.start])
    for group in range(part.start, part.end):
        end = first + rows[group]
        yield from _read_group(opened, part.path, group, source.text, first, end)
        first = end


def _open(file: str | Path) -> Any:
    """Open a parquet file and check that its row groups have the rows that its footer counts.

    Raises: one of UNREADABLE.
    """
    opened = pq.ParquetFile(file, memory_map=True, page_checksum_verification=True)
    rows = sum(_rows_of_groups(opened))
    due = opened.metadata.num_rows
    if rows != due:
        raise pa.ArrowInvalid(f"its row groups have {counted(rows, 'row')} in place of {due:,}")
    return opened


def _rows_of_groups(opened: Any) -> list[int]:
    metadata = opened.metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _why_unreadable(schema: Any, column: str) -> str | None:
    """Return why a file of this schema has no text in the column; None if it has."""
    if column not in schema.names:
        return missing_column(column, schema.names)
    if schema.names.count(column) > 1:
        return f"has several columns {column}"
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):  # a categorical column of pandas
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    is_text = any(test(kind) for test in tests)
    if not is_text:
        columns = ", ".join(schema.names)
        return f"column {column} holds {kind}, not text; the columns are {columns}"
    return None


def _read_group(
    opened: Any,
    path: str,
    group: int,
    column: str,
    row: int,
    end: int,
) -> Iterator[Row]:
    """Yield the rows of a row group, which are the file's rows from `row` to `end`.

    Damage costs the rest of its row group, not the rest of the file.
    """
    where = f"{path}, row group {group}, behind row"
    try:
        for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column]):
            for raw in _as_bytes(batch.column(0)):
                row += 1
                yield _decode(raw, f"{path}, row {row:,}")
    except UNREADABLE as error:
        reason = f"cannot be read further ({error})"
        yield UnreadableDocument(f"{where} {row:,}", reason, max(1, end - row))
    else:
        if row != end:  # a page's header has no checksum
            reason = f"cannot be read further (its end should be row {end:,})"
            yield UnreadableDocument(f"{where} {row:,}", reason, max(1, end - row))


def _as_bytes(texts: Any) -> list[bytes | None]:
    """Return an array of texts as bytes: pyarrow's strings may hold bytes that are not UTF-8."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    as_bytes: list[bytes | None] = texts.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return as_bytes


def _decode(raw: bytes | None, where: str) -> Row:
    """Return the text of a row."""
    if raw is None:
        return ""
    if len(raw) > LONGEST_DOCUMENT:
        return UnreadableDocument(where, f"is over {LONGEST_DOCUMENT // 2**20} MiB long")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: {error.reason} (byte 0x{raw[error.start]:02x})"
        return UnreadableDocument(where, reason)
