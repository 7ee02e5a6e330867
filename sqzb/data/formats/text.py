"""Lines of text files, plain or compressed, for the formats that are made of lines."""

import codecs
import io
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from sqzb.data.formats.common import LONGEST
from sqzb.encodings import likely_encoding
from sqzb.errors import UserError

# By ending. Python's own module reads .xz, because Arrow cannot.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "lzma"}

# Python puts one of these in place of each byte that is not UTF-8 ("surrogateescape").
ESCAPED = re.compile("[\udc80-\udcff]+")

PIECE = 2**20  # characters of a text without lines that are read at once


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading bytes; decompress it if its name says that it is compressed."""
    compression = COMPRESSIONS.get(Path(path).suffix.lower())
    if compression is None:
        return open(path, "rb")
    if compression == "lzma":
        return io.BufferedReader(lzma.open(path, "rb"))
    return io.BufferedReader(pa.input_stream(path, compression=compression))


def open_text(path: str, newline: str = "\n") -> IO[str]:
    """Open a file of UTF-8, or of UTF-16 with a byte order mark. Line ends stay as they are.

    newline: by default, a line ends with a line feed only; "": with a lone carriage return too.
    """
    return decoded(open_bytes(path), newline)


def decoded(stream: Any, newline: str = "\n") -> IO[str]:
    """Return the text of a stream of bytes that can be peeked into."""
    start = stream.peek(2)[:2]
    is_utf16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)


def lines(opened: IO[str], path: str) -> Iterator[str]:
    """Yield the lines of a text with their ends.

    path: for messages.

    Raises:
        UserError: A line is in another encoding, or is too long.
    """
    number = 0
    while line := read(opened, path, number + 1, line=True):
        number += 1
        if len(line) > LONGEST:
            raise UserError(
                f"{path}:{number}: the line is over {LONGEST // 2**20} MiB long. Check that this "
                "is the right file, and that its lines have ends."
            )
        yield line


def read(opened: IO[str], path: str, number: int, line: bool = False) -> str:
    """Return the next piece of a text, or its next line; nothing at the text's end.

    path, number: of the line that begins here, for messages.

    Raises:
        UserError: The piece is in another encoding.
    """
    try:
        piece = opened.readline(LONGEST + 1) if line else opened.read(PIECE)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: the file begins as UTF-16 and cannot be decoded further "
            f"({error.reason}). Save the file as UTF-8."
        ) from error
    if not piece.isascii() and (bad := ESCAPED.search(piece)):
        raise _not_utf8(path, number, piece, bad)
    if "\0" in piece:
        number += piece[: piece.index("\0")].count("\n")
        encoding = likely_encoding(b"\0")
        raise UserError(
            f"{path}:{number}: there is a NUL character, so the encoding is likely "
            f"{encoding.words}. Convert the file: {encoding.command(path)}"
        )
    return piece


def _not_utf8(path: str, number: int, piece: str, bad: re.Match[str]) -> UserError:
    """Return the error for bytes that are not UTF-8, with the encoding that is likely."""
    number += piece[: bad.start()].count("\n")
    begin = piece.rfind("\n", 0, bad.start()) + 1
    before = piece[max(begin, bad.start() - 20) : bad.start()]
    end = piece.find("\n", bad.end())
    line = piece[begin : end if end >= 0 else None]

    encoding = likely_encoding(line.encode("utf-8", "surrogateescape"))
    return UserError(
        f"{path}:{number}: byte {ord(bad[0][0]) - 0xDC00:#04x} after {before!r} is not UTF-8; the "
        f"encoding is likely {encoding.words}. Convert the file: {encoding.command(path)}"
    )
