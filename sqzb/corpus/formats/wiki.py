"""Output of wikiextractor, in either of its formats.

With --json, wikiextractor writes a JSON object a line. Without, it writes for each page
`<doc ...>`, the title, the text and `</doc>`, each on lines of their own.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sqzb.corpus.formats import jsonl
from sqzb.corpus.formats.common import Part, Piece, Row, UnreadableDocument
from sqzb.corpus.formats.lines import (
    LineBlock,
    byte_ranges,
    decode,
    location,
    open_text,
    read_lines,
)
from sqzb.corpus.linear import unescaped
from sqzb.recipe import Source

FILE_NAME = re.compile(r"wiki_\d+")  # wikiextractor's files have no suffix

NO_END = "has no </doc>"


def divide(file: Path, source: Source, unit_bytes: int) -> Iterator[Piece]:
    """Yield the file in byte ranges."""
    return byte_ranges(file, unit_bytes)


def read(part: Part, source: Source) -> Iterator[Row]:
    """Yield the text of the part's pages, without their titles."""
    with open_text(part.path) as stream:
        is_json = stream.read(1) == b"{"
    if is_json:
        yield from jsonl.read(part, source)
    else:
        yield from _read_pages(part)


def _read_pages(part: Part) -> Iterator[Row]:
    """Yield the pages of a file with `<doc ...>` tags.

    A part extends from its first `<doc ` to the first `<doc ` of the next part. The first part
    also holds what is before its first `<doc `.
    """
    page: LineBlock | None = None
    is_ours = part.start == 0
    is_astray = False  # after a line outside all pages; only the first such line is reported

    for line in read_lines(part):
        is_page_start = line.raw.startswith(b"<doc ")
        if line.start >= part.end and (is_page_start or not is_ours):
            break

        if is_page_start:
            if page is not None:
                yield UnreadableDocument(location(part, page.lines[0]), NO_END)
            page = LineBlock()
            page.add(line)
            is_ours = True
            is_astray = False
        elif page is not None and line.raw.startswith(b"</doc>"):
            yield _without_title(decode(part, page.lines))
            page = None
        elif page is not None:
            page.add(line)
        elif is_ours and not is_astray and line.raw.strip():
            is_astray = True
            yield UnreadableDocument(location(part, line), "is outside of any <doc ...>")

    if page is not None:
        yield UnreadableDocument(location(part, page.lines[0]), NO_END)


def _without_title(page: Row) -> Row:
    """Return a page without its tag, and without its first line if that is the tag's title."""
    if isinstance(page, UnreadableDocument):
        return page
    tag, _, text = page.partition("\n")
    first_line, _, rest = text.partition("\n")
    is_title = f'title="{first_line.strip()}"' in unescaped(tag)
    return rest if is_title else text
