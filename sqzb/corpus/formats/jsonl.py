"""JSON lines: an object a line, with the text under the source's key `text`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqzb.corpus.formats.common import (
    HALF_CHARACTER,
    Part,
    Piece,
    Row,
    UnreadableDocument,
    missing_column,
)
from sqzb.corpus.formats.lines import byte_ranges, decode, location, read_lines
from sqzb.recipe import Source


def divide(file: Path, source: Source, unit_bytes: int) -> Iterator[Piece]:
    """Yield the file in byte ranges. A line belongs to the range in which it starts."""
    return byte_ranges(file, unit_bytes)


def read(part: Part, source: Source) -> Iterator[Row]:
    """Yield the text of each line that starts in the part. Blank lines are skipped.

    A null is an empty document, as in parquet.
    """
    for line in read_lines(part):
        if line.start >= part.end:
            return

        text = decode(part, [line])
        if isinstance(text, UnreadableDocument):
            yield text
            continue
        if not text.strip():
            continue

        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield UnreadableDocument(location(part, line), f"is no JSON ({error})")
            continue

        reason = _why_unreadable(row, source.text)
        if reason is None:
            yield HALF_CHARACTER.sub("\ufffd", row[source.text] or "")
        else:
            yield UnreadableDocument(location(part, line), reason)


def _why_unreadable(row: Any, column: str) -> str | None:
    """Return why a line's JSON value holds no text; None if it holds text or null."""
    if not isinstance(row, dict):
        return f"is no JSON object with the key {column}"
    if column not in row:
        return missing_column(column, list(row))
    if not isinstance(row[column], str | None):
        return f"{column} holds {str(row[column])[:100]!r}, not text"
    return None
