"""The encoding of text that is not UTF-8, guessed for messages."""

import codecs
from typing import NamedTuple

_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class Encoding(NamedTuple):
    """An encoding, in words and as the command iconv calls it."""

    words: str
    name: str

    def command(self, path: str) -> str:
        """Return the command that converts a file."""
        return f"iconv -f {self.name} -t UTF-8 {path} > NEW"


def likely_encoding(line: bytes) -> Encoding:
    """Return the encoding that a line, or a whole file, is likely to have.

    In a Western text few letters have accents; in other scripts nearly each byte is over 127.
    """
    if line.startswith(_MARKS):
        return Encoding("UTF-16 or UTF-32", "UTF-32" if b"\0\0" in line[:8] else "UTF-16")
    if b"\0" in line:
        words = "UTF-16 or UTF-32 without a byte order mark, or the file holds no text"
        return Encoding(words, "UTF-16LE")
    letters = b"".join(line.split())
    if sum(byte > 127 for byte in letters) > len(letters) / 3:
        return Encoding("not a Western encoding, but one such as Windows-1251 or GB18030", "NAME")
    return Encoding("Windows-1252 or Latin-1", "WINDOWS-1252")
