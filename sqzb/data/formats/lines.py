"""Plain text with an example a line, and a tab between two texts. There are no labels."""

from collections.abc import Iterator

from sqzb.console import counted
from sqzb.data.formats.common import Row, Table
from sqzb.data.formats.text import lines, open_text
from sqzb.errors import UserError

COLUMNS = (("text",), ("text_a", "text_b"))  # of single texts, and of pairs


def open_table(path: str) -> Table:
    """Open a file of plain lines. The first line says whether the examples are pairs.

    Raises:
        UserError: The file is empty, or a line has more than one tab.
    """
    with open_text(path) as opened:
        first = next(lines(opened, path), None)
    if first is None:
        raise UserError(f"{path} is empty. Give a text a line.")
    columns = columns_of(first, path)
    return Table(path, columns, "line", lambda wanted: _rows(path, columns))


def columns_of(first: str, path: str) -> tuple[str, ...]:
    """Return the columns of a file with this first line.

    Raises:
        UserError: the line has more than one tab, or all lines have no line feed at their end.
    """
    if "\r" in first and not first.endswith("\n"):
        raise UserError(
            f"{path}:1: the lines end with carriage returns only, as on old Macs. Convert the "
            f"file: tr '\\r' '\\n' < {path} > NEW"
        )
    tabs = first.count("\t")
    if tabs > 1:
        raise UserError(
            f"{path}:1: the line has {tabs} tabs. Give a text a line, or two with a tab between; "
            "for a table name the file .tsv."
        )
    return COLUMNS[tabs]


def _rows(path: str, columns: tuple[str, ...]) -> Iterator[Row]:
    with open_text(path) as opened:
        yield from rows(lines(opened, path), path, columns)


def rows(given: Iterator[str], path: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield a row for each line, blank lines too.

    Raises:
        UserError: a line has another number of texts than the first one.
    """
    for number, line in enumerate(given, 1):
        texts = line.rstrip("\r\n").split("\t")
        if len(texts) > len(columns) or (len(texts) < len(columns) and line.strip()):
            raise UserError(
                f"{path}:{number}: the line has {counted(len(texts), 'text')}, and line 1 has "
                f"{len(columns)}. Give all lines the same number, with a tab between two texts."
            )
        texts += [""] * (len(columns) - len(texts))
        yield Row(number, dict(zip(columns, texts, strict=True)))
