"""Plain text: a document a file, a document a block between blank lines, or a sentence a line."""

from collections.abc import Iterator
from pathlib import Path

from sqzb.corpus.formats.common import LONGEST_DOCUMENT, Part, Piece, Row, UnreadableDocument
from sqzb.corpus.formats.lines import (
    Line,
    LineBlock,
    byte_ranges,
    decode,
    open_text,
    read_lines,
    whole_file,
)
from sqzb.recipe import Source


def divide(file: Path, source: Source, unit_bytes: int) -> Iterator[Piece]:
    """Yield the file in byte ranges, or whole if the whole file is one document."""
    if _is_one_document(source):
        yield whole_file(file)
    else:
        yield from byte_ranges(file, unit_bytes)


def read(part: Part, source: Source) -> Iterator[Row]:
    """Yield the documents of the part, or its lines if the source's lines are sentences."""
    if source.sentences_per_document is not None:
        yield from _read_sentences(part)
    elif _is_one_document(source):
        yield _read_whole(part)
    else:
        yield from _read_blocks(part)


def _is_one_document(source: Source) -> bool:
    return source.txt_documents == "file" and source.sentences_per_document is None


def _read_sentences(part: Part) -> Iterator[Row]:
    """Yield the lines that start in the part."""
    for line in read_lines(part):
        if line.start >= part.end:
            return
        yield decode(part, [line])


def _read_whole(part: Part) -> Row:
    """Return the text of the file."""
    with open_text(part.path) as stream:
        raw = stream.read(LONGEST_DOCUMENT + 1)

    if len(raw) > LONGEST_DOCUMENT:
        limit = f"{LONGEST_DOCUMENT // 2**20} MiB"
        reason = f"is over {limit} long, for one document; see the source's key txt_documents"
        return UnreadableDocument(part.path, reason)
    if not raw:  # a compressed file of nothing
        return ""

    # The text is decoded by lines to find the line of a byte that is not UTF-8.
    numbered = enumerate(raw.splitlines(keepends=True), start=1)
    return decode(part, [Line(0, number, line) for number, line in numbered])


def _read_blocks(part: Part) -> Iterator[Row]:
    """Yield the blocks of lines between blank lines.

    A block belongs to the part in which the last blank line before the block starts. The first
    block of a file belongs to the first part.
    """
    block = LineBlock()
    is_ours = part.start == 0

    for line in read_lines(part):
        is_blank = not line.raw.strip()

        if is_blank:
            if block.lines:
                yield decode(part, block.lines)
            if line.start >= part.end:
                return
            block = LineBlock()
            is_ours = True
        elif is_ours:
            block.add(line)
        elif line.start >= part.end:
            return

    if block.lines:
        yield decode(part, block.lines)
