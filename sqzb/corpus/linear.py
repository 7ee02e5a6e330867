"""Unicode's normal form and HTML's character references, in linear time for any text."""

import html
import re
import unicodedata
from functools import cache

# Python's normal form C sorts the marks above and below a letter by exchanging neighbours, which
# takes time as the square of their number. A run of more marks than this is sorted beforehand.
_MANY = 32
# Tibetan vowels: no marks by their class, but each decomposes into two marks.
_PAIRS_OF_MARKS = "\u0f73\u0f75\u0f81"
# Python converts a decimal reference to an integer and refuses one of over 4,300 digits. No
# character has a number of more than seven digits.
_LONG_REFERENCE = re.compile("&#[0-9]{100,};?")


def normalized(text: str) -> str:
    """Return a text in Unicode's normal form C."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _runs_of_marks().sub(_in_order, text))


def unescaped(text: str) -> str:
    """Return a text with HTML's character references replaced."""
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


def _in_order(marks: re.Match[str]) -> str:
    """Return a run of marks, decomposed and in Unicode's canonical order."""
    # Two marks of one class keep their order.
    decomposed = "".join(unicodedata.normalize("NFD", mark) for mark in marks[0])
    return "".join(sorted(decomposed, key=unicodedata.combining))


@cache
def _runs_of_marks() -> re.Pattern[str]:
    """Return a pattern of over _MANY marks, made from Python's own table of characters."""
    numbers = range(0x300, 0x20000)  # first to last block with marks
    marks = [chr(number) for number in numbers if unicodedata.combining(chr(number))]
    return re.compile(f"[{''.join(marks)}{_PAIRS_OF_MARKS}]{{{_MANY + 1},}}")
