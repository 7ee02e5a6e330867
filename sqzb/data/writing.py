"""Tables written row by row: CSV, TSV, JSON lines and parquet, each whole or not at all."""

import csv
import io
import json
import lzma
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, time
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.errors import UserError
from sqzb.files import whole_file

# By ending, as the readers have them.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "lzma"}
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
ENDINGS = (*DELIMITERS, *JSON_LINES, PARQUET)

Values = Mapping[str, Any]


class Writer(Protocol):
    """An open file that takes rows; a row is its values by column."""

    def write(self, rows: Sequence[Values]) -> None:
        """Append rows."""


class CsvWriter:
    """Cells with a delimiter between, below a header line.

    Missing values are empty cells; lists and objects are JSON texts.
    """

    def __init__(self, file: IO[str], columns: Sequence[str], delimiter: str) -> None:
        self._columns = columns
        self._file = file
        self._record = io.StringIO(newline="")
        # The csv module quotes a cell that has a character of the line end, so both must be in it.
        self._writer = csv.writer(self._record, delimiter=delimiter, lineterminator="\r\n")
        self._write(columns)

    def write(self, rows: Sequence[Values]) -> None:
        """Append rows; a column that a row lacks is an empty cell.

        Raises:
            UserError: A row has a column that the file has not.
        """
        for row in rows:
            others = row.keys() - set(self._columns)
            if others:
                raise UserError(
                    f"A row has the column {min(others)!r}, which the first row lacks, so that it "
                    "has no place under the header. Give an --output of .jsonl."
                )
            self._write([_cell(row.get(name)) for name in self._columns])

    def _write(self, cells: Sequence[str]) -> None:
        self._record.seek(0)
        self._record.truncate()
        self._writer.writerow(cells)
        self._file.write(self._record.getvalue().removesuffix("\r\n") + "\n")


class JsonLinesWriter:
    """A JSON object a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, rows: Sequence[Values]) -> None:
        """Append rows, with the columns that each of them has."""
        for row in rows:
            self._file.write(json_line(row) + "\n")


class ParquetWriter:
    """A parquet file; each call of `write` makes a row group."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema)

    def write(self, rows: Sequence[Values]) -> None:
        """Append rows; a column that a row lacks is null."""
        self._writer.write_table(pa.Table.from_pylist(list(rows), self._schema))

    def close(self) -> None:
        """Write the file's end."""
        self._writer.close()


def has_ending(path: Path) -> bool:
    """Return whether a file's name has the ending of a format that can be written."""
    return _ending(path) in ENDINGS


def output_ending(path: Path) -> str:
    """Return the format of a file to write: one of `ENDINGS`, without that of a compression.

    Raises:
        UserError: The file's name has another ending.
    """
    if not has_ending(path):
        raise UserError(
            f"{path} has none of the endings that can be written: {', '.join(ENDINGS)} (each but "
            f"{PARQUET} also with {', '.join(COMPRESSIONS)} behind it). Give one of them."
        )
    return _ending(path)


def _ending(path: Path) -> str:
    name = Path(path.name.lower())
    if name.suffix in COMPRESSIONS and name.with_suffix("").suffix != PARQUET:
        name = name.with_suffix("")
    return name.suffix


@contextmanager
def open_writer(
    path: Path, columns: Sequence[str], schema: pa.Schema | None = None
) -> Iterator[Writer]:
    """Yield a writer of the format that the file's ending names.

    The file appears when the block ends without an error. Until then an older one is untouched.

    columns: all columns, in order; schema: their types, which parquet needs

    Raises:
        UserError: The ending is not known.
        OSError: The file cannot be written.
    """
    ending = output_ending(path)
    with whole_file(path) as aside, ExitStack() as opened:
        file = opened.enter_context(_open_bytes(aside, path.suffix.lower()))
        if ending == PARQUET:
            assert schema is not None
            parquet = ParquetWriter(file, schema)
            opened.callback(parquet.close)
            yield parquet
            return
        text = opened.enter_context(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        if ending in JSON_LINES:
            yield JsonLinesWriter(text)
        else:
            yield CsvWriter(text, columns, DELIMITERS[ending])


def json_line(row: Values) -> str:
    """Return a row as a JSON object in one line."""
    return json.dumps(_plain(row), ensure_ascii=False)


def _open_bytes(path: Path, suffix: str) -> IO[bytes]:
    """Open a file for writing; `suffix` of its final name says how it is compressed."""
    compression = COMPRESSIONS.get(suffix)
    if compression is None:
        return path.open("wb")
    if compression == "lzma":
        return io.BufferedWriter(lzma.open(path, "wb"))
    return io.BufferedWriter(pa.output_stream(str(path), compression=compression))


def _cell(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN is null, a date is a text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
