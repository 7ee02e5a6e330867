"""CoNLL files: a word and its tag a line, and a blank line between sentences."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sqzb.console import counted
from sqzb.data.formats.common import Row, Table
from sqzb.data.formats.text import lines, open_text
from sqzb.errors import UserError

COLUMNS = ("words", "tags")
DOCUMENT = "-DOCSTART-"
SPACE = " \t\r\n"
SPACES = re.compile(r"[ \t]+")


class _Layout(NamedTuple):
    """Line of the first word, number of columns, and whether tabs alone divide them."""

    line: int
    columns: int
    tabs: bool

    def cells(self, line: str) -> list[str]:
        """Return the columns of a line."""
        return line.rstrip("\r\n").split("\t") if self.tabs else SPACES.split(line.strip(SPACE))


def open_table(path: str) -> Table:
    """Open a CoNLL file: the first column is the word, the last is its tag.

    -DOCSTART- lines are passed over, and comments: lines that begin with # before a sentence and
    have another number of columns than words have.

    Raises:
        UserError: The file has no words, or words without tags.
    """
    layout = _layout(path)
    return Table(path, COLUMNS, "line", lambda wanted: _rows(path, layout))


def _layout(path: str) -> _Layout:
    """Return the layout of the first line that is sure to be a word."""
    with open_text(path) as opened:
        for number, line in enumerate(lines(opened, path), 1):
            if not line.strip(SPACE) or line.startswith((DOCUMENT, "#")):
                continue
            tabs = "\t" in line.strip(SPACE)
            columns = len(_Layout(number, 0, tabs).cells(line))
            if columns == 1:
                raise UserError(
                    f"{path}:{number}: there is a word without a tag. Give a word, white space and "
                    "its tag on each line, and a blank line between sentences."
                )
            return _Layout(number, columns, tabs)
    raise UserError(f"{path} has no words. Give a file with a word and its tag on each line.")


def _rows(path: str, layout: _Layout) -> Iterator[Row]:
    start = 0
    words: list[str] = []
    tags: list[str] = []
    with open_text(path) as opened:
        for number, line in enumerate(lines(opened, path), 1):
            if not line.strip(SPACE) or line.startswith(DOCUMENT):
                if words:
                    yield Row(start, {"words": words, "tags": tags})
                    words, tags = [], []
                continue

            cells = layout.cells(line)
            if len(cells) != layout.columns:
                if line.startswith("#") and not words:
                    continue
                raise UserError(
                    f"{path}:{number}: the line has {counted(len(cells), 'column')}, and "
                    f"line {layout.line} has {layout.columns}. Give each word the same "
                    "columns, the tag last."
                )
            start = start if words else number
            words.append(cells[0])
            tags.append(cells[-1])
    if words:
        yield Row(start, {"words": words, "tags": tags})
