"""Parquet files."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.console import counted
from sqzb.data.formats.common import UNREADABLE, Row, Table, check_columns, damaged
from sqzb.errors import UserError

ROWS_AT_ONCE = 1024


def open_table(path: str) -> Table:
    """Open a parquet file.

    Raises:
        UserError: The file is no parquet file, or two columns have one name.
    """
    columns = tuple(_open(path).schema_arrow.names)
    check_columns(path, columns, line=None)
    return Table(path, columns, "row", lambda wanted: _rows(path, wanted))


def _open(path: str) -> Any:
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no parquet file ({error}). Get the file again.") from error
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _rows(path: str, wanted: Sequence[str]) -> Iterator[Row]:
    opened = _open(path)
    number = 0
    for batch in opened.iter_batches(ROWS_AT_ONCE, columns=list(wanted)):
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            number += 1
            yield Row(number, dict(zip(batch.schema.names, values, strict=True)))
    due = opened.metadata.num_rows
    if wanted and number != due:
        raise UserError(
            f"{path} has {counted(number, 'row')} in place of {due:,}. Get the file again."
        )
