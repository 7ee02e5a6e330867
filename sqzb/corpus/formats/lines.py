"""Lines of text files, plain or compressed, for the formats that are made of lines."""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sqzb.corpus.formats.common import LONGEST_DOCUMENT, Part, Piece, Row, UnreadableDocument
from sqzb.encodings import likely_encoding

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # by suffix, in Arrow's terms
COMPRESSED = tuple(COMPRESSIONS)
TO_THE_END = 2**62  # the end of a part that is a whole file

BLOCK_BYTES = 2**20  # bytes to read at once where lines are only skipped or counted


class Line(NamedTuple):
    """A line of a file."""

    start: int  # byte in the file
    number: int  # line number in the part, from 1
    raw: bytes  # with the line ending; cut if the line is longer than LONGEST_DOCUMENT


class LineBlock:
    """Consecutive lines that make a document.

    Of a document that is too long, the block keeps only enough lines to prove it.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._size = 0

    def add(self, line: Line) -> None:
        """Append a line."""
        if self._size <= LONGEST_DOCUMENT:
            self.lines.append(line)
            self._size += len(line.raw)


# Division


def whole_file(file: Path) -> Piece:
    """Return the whole file as one piece."""
    return Piece(Part(str(file), 0, TO_THE_END), file.stat().st_size)


def byte_ranges(file: Path, unit_bytes: int) -> Iterator[Piece]:
    """Yield the file in ranges of `unit_bytes`.

    A compressed file can be read only from its start, so it is one piece.
    """
    if file.suffix.lower() in COMPRESSED:
        yield whole_file(file)
        return

    size = file.stat().st_size
    for start in range(0, size, unit_bytes):
        end = min(start + unit_bytes, size)
        yield Piece(Part(str(file), start, end), end - start)


# Reading


def open_text(path: str) -> io.BufferedIOBase:
    """Open a file for reading bytes; decompress it if its name says that it is compressed."""
    compression = COMPRESSIONS.get(Path(path).suffix.lower())
    if compression is not None:
        return io.BufferedReader(pa.input_stream(path, compression=compression))
    return open(path, "rb")


def read_lines(part: Part) -> Iterator[Line]:
    """Yield the lines from the first that starts in the part to the end of the file.

    The caller decides where the part's last document ends. If no line starts in the part, yield
    nothing.
    """
    with open_text(part.path) as stream:
        position = number = 0

        if part.start:
            # A line starts in the part if the line ending before it is at `part.start - 1` or
            # later. Search no further than the part: a huge file may have no line ending at all.
            position = stream.seek(part.start - 1)
            position += _skip_line(stream, part.end - position)
            if position >= part.end:
                return

        while raw := stream.readline(LONGEST_DOCUMENT + 1):
            number += 1
            yield Line(position, number, raw)
            position += len(raw)
            is_cut = len(raw) > LONGEST_DOCUMENT and not raw.endswith(b"\n")
            if is_cut:
                position += _skip_line(stream)


def _skip_line(stream: io.BufferedIOBase, limit: int = TO_THE_END) -> int:
    """Read to the end of the line, or about `limit` bytes; return the number of bytes read."""
    skipped = 0
    while skipped < limit and (raw := stream.readline(BLOCK_BYTES)):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


def decode(part: Part, lines: list[Line]) -> Row:
    """Return the text of consecutive lines, at least one, of the part."""
    raw = b"".join(line.raw for line in lines)
    if len(raw) > LONGEST_DOCUMENT:
        limit = f"{LONGEST_DOCUMENT // 2**20} MiB"
        return UnreadableDocument(location(part, lines[0]), f"is over {limit} long")

    is_start_of_file = lines[0].start == 0
    try:
        return raw.decode("utf-8-sig" if is_start_of_file else "utf-8")
    except UnicodeDecodeError as error:
        decoded = error.object  # without a byte order mark
        line = lines[decoded[: error.start].count(b"\n")]
        byte = f"0x{decoded[error.start]:02x}"
        encoding = likely_encoding(line.raw)
        reason = (
            f"is not UTF-8: {error.reason} (byte {byte}); its encoding is likely {encoding.words}. "
            f"Convert the file: {encoding.command(part.path)}"
        )
        return UnreadableDocument(location(part, line), reason)


def location(part: Part, line: Line) -> str:
    """Return `path:number`, with the number of the line in the file, from 1."""
    return f"{part.path}:{_lines_before(part) + line.number}"


@lru_cache(maxsize=1)
def _lines_before(part: Part) -> int:
    """Count the lines that start before the part.

    This count reads the file up to the part, so only an unreadable document causes it.
    """
    if not part.start:
        return 0

    # The last line ending that counts is before `part.start - 1`: see read_lines, which skips
    # the line that holds this byte. That skipped line is the 1.
    end = part.start - 1
    count = 1
    with open(part.path, "rb") as stream:
        for start in range(0, end, BLOCK_BYTES):
            count += stream.read(min(BLOCK_BYTES, end - start)).count(b"\n")
    return count
