"""CSV and TSV files with a header line."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Literal, NamedTuple

from sqzb.data.formats.common import LONGEST, Row, Table, check_columns, header_hint
from sqzb.data.formats.text import COMPRESSIONS, lines, open_text
from sqzb.errors import UserError

QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Dialect(NamedTuple):
    """The division of a line into cells.

    delimiter: the character between cells.
    quoting: whether quotes around a cell are marks (csv.QUOTE_MINIMAL) or text (csv.QUOTE_NONE).
    """

    delimiter: str
    quoting: Literal[0, 3]  # csv.QUOTE_MINIMAL or csv.QUOTE_NONE


def open_table(path: str) -> Table:
    """Open a CSV or TSV file by its ending. Blank lines are no rows.

    A quoted cell may hold delimiters and line ends. A .csv file may have ; or tabs as delimiters.

    Raises:
        UserError: The file is empty or not UTF-8, two columns have one name, or a TSV file can be
            read in two ways.
    """
    is_tsv = path.lower().removesuffix(_compression(path)).endswith((".tsv", ".tab"))
    delimiter = "\t" if is_tsv else _delimiter(path)
    dialect = Dialect(delimiter, csv.QUOTE_MINIMAL)
    line, names = _header(path, dialect)
    if is_tsv and _quotes_are_text(path, len(names)):
        dialect = Dialect(delimiter, csv.QUOTE_NONE)
        line, names = _header(path, dialect)
    columns = tuple(name.strip() for name in names)
    check_columns(path, columns, line)
    return Table(path, columns, "line", lambda wanted: _rows(path, dialect, columns))


def _compression(path: str) -> str:
    endings = (ending for ending in COMPRESSIONS if path.lower().endswith(ending))
    return next(endings, "")


def _delimiter(path: str) -> str:
    """Return ; or a tab if the header has it and no comma; otherwise a comma."""
    dividing = []
    for delimiter in (",", ";", "\t"):
        # Quotes seem out of place where the delimiter is another.
        with suppress(UserError):
            if len(_header(path, Dialect(delimiter, csv.QUOTE_MINIMAL))[1]) > 1:
                dividing.append(delimiter)
    return dividing[0] if len(dividing) == 1 else ","


def _header(path: str, dialect: Dialect) -> tuple[int, list[str]]:
    """Return the line where the header begins, and its cells."""
    with open_text(path, newline="") as opened:
        header = next(_records(opened, path, dialect), None)
    if header is None:
        raise UserError(f"{path} is empty. Give a file with a header line and rows.")
    return header


def _rows(path: str, dialect: Dialect, columns: Sequence[str]) -> Iterator[Row]:
    with open_text(path, newline="") as opened:
        records = _records(opened, path, dialect)
        next(records)  # the header
        for number, cells in records:
            if len(cells) != len(columns):
                raise _ragged(path, number, cells, columns, dialect)
            yield Row(number, dict(zip(columns, cells, strict=True)))


def _records(opened: IO[str], path: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each record that has any.

    Raises:
        UserError: A quote is out of place.
    """
    csv.field_size_limit(LONGEST)
    reader = csv.reader(
        lines(opened, path), delimiter=dialect.delimiter, quoting=dialect.quoting, strict=True
    )
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _misquoted(path, first, reader.line_num, error) from error
        if cells:
            yield first, cells


def _misquoted(path: str, first: int, last: int, error: csv.Error) -> UserError:
    """Return the error for a record from line `first` on that broke the rules in line `last`."""
    reason = f"a quoted cell is followed by more text in line {last} ({error})"
    if "end of data" in str(error):
        reason = "a quoted cell begins in this row and never ends"
    elif "field limit" in str(error):
        reason = f"a cell is over {LONGEST // 2**20} MiB long; probably its quote never ends"
    return UserError(
        f"{path}:{first}: {reason}. Put a cell that begins with a quote in quotes, and double each "
        "quote in it; or give the rows as JSONL."
    )


def _ragged(
    path: str, number: int, cells: Sequence[str], columns: Sequence[str], dialect: Dialect
) -> UserError:
    name = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}[dialect.delimiter]
    advice = f"Put a cell that holds {name} in quotes"
    if len(cells) < len(columns):
        advice = "Add the missing cells, or get the file again if it was cut short here"
    have = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
    return UserError(
        f"{path}:{number}: the row has {have}, and the header has {len(columns)}. "
        f"{advice}.{header_hint(columns)}"
    )


def _quotes_are_text(path: str, n_columns: int) -> bool:
    """Return whether quotes in a TSV file are plain characters, as in GLUE's files.

    They are if every line has its cells and a quoted cell would be malformed: then no other
    reading is possible.

    Raises:
        UserError: Both readings are possible, and they differ.
    """
    malformed = 0
    with open_text(path, newline="") as opened:
        for number, line in enumerate(lines(opened, path), 1):
            cells = line.rstrip("\r\n").split("\t")
            if cells != [""] and len(cells) != n_columns:
                return False
            if '"' in line and not malformed:
                malformed = number * any(map(_is_malformed, cells))
    if not malformed:
        return False

    quoted = Dialect("\t", csv.QUOTE_MINIMAL)
    try:
        with open_text(path, newline="") as opened:
            fits = all(len(cells) == n_columns for _, cells in _records(opened, path, quoted))
    except UserError:
        return True
    if not fits:
        return True
    raise UserError(
        f"{path}:{malformed}: a quote here may begin a cell of several lines, or be a character of "
        "a cell that ends with its line. Double the quotes that are characters and put their cells "
        "in quotes, or give the rows as JSONL."
    )


def _is_malformed(cell: str) -> bool:
    return cell.startswith('"') and not QUOTED.fullmatch(cell)
