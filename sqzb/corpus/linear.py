"""Unicode's normal form and HTML's character references, in linear time for any text."""

import html
import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Python's normal form C sorts the marks above and below a letter by exchanging neighbours, which
# takes time as the square of their number. A run of more marks than this is sorted beforehand.
_MANY = 32
# Tibetan vowels: no marks by their class, but each decomposes into two marks.
_PAIRS_OF_MARKS = "\u0f73\u0f75\u0f81"
_END = 0x20000  # behind the last mark
# Python converts a decimal reference to an integer and refuses one of over 4,300 digits. No
# character has a number of more than seven digits.
_LONG_REFERENCE = re.compile("&#[0-9]{100,};?")


def normalized(text: str) -> str:
    """Return a text in Unicode's normal form C."""
    if text.isascii():
        return text
    if _has_long_run(text):
        text = _runs_of_marks().sub(_in_order, text)
    return unicodedata.normalize("NFC", text)


def unescaped(text: str) -> str:
    """Return a text with HTML's character references replaced."""
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


def _in_order(marks: re.Match[str]) -> str:
    """Return a run of marks, decomposed and in Unicode's canonical order."""
    # Two marks of one class keep their order.
    decomposed = "".join(unicodedata.normalize("NFD", mark) for mark in marks[0])
    return "".join(sorted(decomposed, key=unicodedata.combining))


def _has_long_run(text: str) -> bool:
    """Return whether more than _MANY marks follow each other; much faster than the pattern."""
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    are_others = ~_is_mark()[np.minimum(characters, _END)]
    others = np.flatnonzero(are_others)
    bounds = np.concatenate([[-1], others, [len(characters)]])
    return bool(np.diff(bounds).max() > _MANY + 1)


@cache
def _is_mark() -> NDArray[np.bool_]:
    """Return for each character up to _END whether it is a mark, from Python's own table."""
    marks = [unicodedata.combining(chr(number)) > 0 for number in range(_END + 1)]
    table = np.array(marks)
    table[list(map(ord, _PAIRS_OF_MARKS))] = True
    return table


@cache
def _runs_of_marks() -> re.Pattern[str]:
    """Return a pattern of over _MANY marks."""
    marks = "".join(map(chr, np.flatnonzero(_is_mark()).tolist()))
    return re.compile(f"[{marks}]{{{_MANY + 1},}}")
