"""Sentence splitting in linear time.

The library `sentencex` looks at the whole text before each sentence end, and searches the rest of
the text for the partner of each quotation mark: its time grows as the square of the text's length.
This module therefore gives it a long paragraph in windows, and no paragraph with many quotation
marks that have no partner.
"""

import re
import string
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sentencex import segment

# Characters. The last quarter of a window is its margin: a quotation that begins before it is
# mostly seen to its end. WINDOWS[0] is for prose; the others are for text of punctuation.
WINDOWS = (4096, 2048, 1024, 512, 256)
# Punctuation marks times characters of a window, at most, unless the window is the smallest. With
# this bound, 1 MB of the worst text that was found takes about a second.
MOST_WORK = 250_000

# The quotation marks that `sentencex` knows, by opening mark; each pair is searched for by itself.
_GUARDED = r"(?<!\w){}(?=\w)", r"{}(?!\w)"  # an apostrophe in a word is no quotation mark
_PLAIN = "{}", "{}"
_PAIRS = [
    ("``", "''", _PLAIN),
    ("`", "'", _GUARDED),
    ("'", "'", _GUARDED),
    *(
        (pair[0], pair[1], _PLAIN)
        for pair in ('""', "«»", "\u2018\u2019", "\u201a\u201a", "“”", "\u201b\u201b", "„“", "»«")
    ),
    *((pair[0], pair[1], _PLAIN) for pair in ("‟‟", "\u2039\u203a", "《》", "「」")),
]
_SAME_AT_BOTH_ENDS = '"\u201a\u201b‟'
_ASCII_MARKS = "`'\""
_ALL_MARKS = _ASCII_MARKS + "«»\u2018\u2019\u201a“”\u201b„‟\u2039\u203a《》「」"
_MARKS = re.compile(f"[{_ALL_MARKS}]")
# Quotation marks without a partner in a window. Each costs the library a search of the window,
# which is 50 times slower where the text is not ASCII.
_MOST_UNPAIRED_ASCII, _MOST_UNPAIRED = 100, 16
_NEUTRAL = "~"  # no letter, no space and no end of a sentence, as quotation marks are


def split_sentences(language: str, paragraph: str) -> list[str]:
    """Return the sentences of a paragraph without line ends; together they are the paragraph.

    The sentences are those of `sentencex`, except in two cases. In a paragraph that needs several
    windows, a quotation that is longer than a margin does not always hold its sentences together.
    Where many quotation marks have no partner, quotation marks hold no sentences together.
    """
    if len(paragraph) ** 2 <= MOST_WORK:  # most paragraphs
        return _segment(language, paragraph)

    sentences: list[str] = []
    begun: list[str] = []  # parts of a sentence that is longer than a window
    start = 0
    marks_before = _marks_before(paragraph)
    while start < len(paragraph):
        window = _window(paragraph, start, marks_before)
        margin = len(window) - len(window) // 4  # where it begins
        is_last = start + len(window) == len(paragraph)
        if is_last:
            segments = _segment(language, window)
        else:
            segments = _segment(language, _without_half_a_pair(window, margin))
            segments = segments[: _number_of_whole(segments, margin)]
        if segments:
            sentences.append("".join([*begun, segments[0]]))
            sentences += segments[1:]
            begun = []
            start += sum(map(len, segments))
        else:
            # Cut behind the last space before the margin, if there is one.
            end = window.rfind(" ", 0, margin) + 1 or margin
            begun.append(window[:end])
            start += end
    if begun:
        sentences.append("".join(begun))
    return sentences


def _window(paragraph: str, start: int, marks_before: NDArray[np.int64]) -> str:
    """Return the text from `start` on, as long as the bound on the work allows."""
    window = ""
    for size in WINDOWS:
        window = paragraph[start : start + size]
        end = start + len(window)
        marks = marks_before[end] - marks_before[start]
        if len(window) ** 2 <= MOST_WORK or marks * len(window) <= MOST_WORK:
            break
    return window


def _without_half_a_pair(window: str, margin: int) -> str:
    """Return a window up to a quotation that begins in its margin and does not end there.

    The library ignores all marks of a kind whose opening and closing marks are the same if their
    number is odd.
    """
    for mark in _SAME_AT_BOTH_ENDS:
        last = window.rfind(mark, margin)
        if last >= 0 and window.count(mark) % 2:
            window = window[:last]
    return window


def _marks_before(text: str) -> NDArray[np.int64]:
    """Return for each position, (length + 1), how many punctuation marks stand before it.

    These are the characters that may end sentences, quotations or brackets.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    marks = [ord(character) for character in set(text) if _is_punctuation(character)]
    return np.append(0, np.cumsum(np.isin(points, marks)))


@cache
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _number_of_whole(segments: list[str], margin: int) -> int:
    """Return how many sentences of a window do not depend on the text behind it.

    The last sentence ends with the window. A sentence that ends in the margin is taken only if it
    is the first.
    """
    end = 0
    for number, sentence in enumerate(segments[:-1]):
        end += len(sentence)
        if end > margin:
            return max(1, number)
    return len(segments) - 1


def _segment(language: str, text: str) -> list[str]:
    """Return the sentences of a window."""
    if not _is_hostile(text):
        return list(segment(language, text))

    # The sentences have the lengths of those of the text without quotation marks.
    sentences: list[str] = []
    start = 0
    for sentence in segment(language, _MARKS.sub(_NEUTRAL, text)):
        end = start + len(sentence)
        sentences.append(text[start:end])
        start = end
    return sentences


def _is_hostile(text: str) -> bool:
    """Return whether too many quotation marks have no partner."""
    is_ascii = text.isascii()
    most = _MOST_UNPAIRED_ASCII if is_ascii else _MOST_UNPAIRED
    if len(text) <= most:
        return False
    marks = sum(map(text.count, _ASCII_MARKS if is_ascii else _ALL_MARKS))
    return marks > most and _unpaired(text) > most


def _unpaired(text: str) -> int:
    """Count the opening marks behind the last closing mark of their pair."""
    count = 0
    for opening, closing, (before, after) in _PAIRS:
        if opening in text:
            closings = [match.start() for match in re.finditer(after.format(closing), text)]
            rest = closings[-1] if closings else 0
            count += len(re.findall(before.format(opening), text[rest:]))
    return count
