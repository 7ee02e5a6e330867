"""Text functions need time in proportion to the text, and give what the libraries give."""

import html
import importlib
import pkgutil
import re
import time
import unicodedata
from collections.abc import Callable
from functools import cache, partial

import pytest
import sentencex
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sqzb
from examples import scaled
from sqzb.corpus import sentences
from sqzb.corpus.linear import normalized, unescaped
from sqzb.corpus.sentences import MOST_WORK, WINDOWS, split_sentences
from sqzb.corpus.text import without_wiki_leftovers

# A text of 40,000 characters takes milliseconds in linear time, and over ten seconds where each
# character is compared with each other one.
LENGTH = 40_000
SECONDS = 3.0  # of this process; a wide bound, for a slow machine

MARKS = [chr(n) for n in range(0x20000) if unicodedata.combining(chr(n))]
PIECES = [
    *"«»“”\"'()[]<>{}|=\u2018\u2019`.!?,;:。@-_/\\&# \n\t\0",
    *(
        "a",
        "A",
        "9",
        "e\u0301",
        "x@y.zz ",
        "A. ",
        "Mr. ",
        "[1] ",
        "``",
        "''",
        "<ref ",
        "</ref>",
        "<br ",
    ),
    *("&#", "&amp;", "( ,", "e+1", "1.", ":1", "\u0301", "\u0327", "\u0344", "\u0f73", "한", "ก"),
]
repeated = st.builds(
    lambda begin, piece, end: begin + piece * (LENGTH // len(piece)) + end,
    st.sampled_from(["", "[[", "a", "1", "« ", "("]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join),
    st.sampled_from(["", "x", "=", "</ref>", "»", "!"]),
)
few = settings(max_examples=scaled(7), deadline=None)


def in_time(function: Callable[[], object], seconds: float = SECONDS) -> bool:
    started = time.process_time()
    function()
    return time.process_time() - started < seconds


# Unicode and HTML


@given(st.text(st.sampled_from([*"aeq\u1100\u1161", *MARKS, *"\u0f73\u0f75\u0f81"]), max_size=90))
def test_the_normal_form_is_unicodes(text: str) -> None:
    for form in (text, "a" + "\u0301\u0327" * 20 + text + "\u0f73" * 20, text * 3):
        assert normalized(form) == unicodedata.normalize("NFC", form)


def test_no_other_character_is_made_of_marks() -> None:
    """Characters of class 0 that decompose into marks, for the next version of Unicode."""
    decomposing = (c for c in map(chr, range(0x110000)) if unicodedata.decomposition(c))
    found = []
    for character in decomposing:
        decomposed = unicodedata.normalize("NFD", character)
        is_starter = not unicodedata.combining(character)
        if is_starter and all(map(unicodedata.combining, decomposed)):
            found.append(character)
    assert found == [*"\u0f73\u0f75\u0f81"] and ord(MARKS[0]) >= 0x300
    assert not any(unicodedata.combining(chr(number)) for number in range(0x20000, 0x110000))


@given(st.lists(st.sampled_from(["&#", "&#x", "&", "1", "f", ";", "amp", "&#x200b;", "é"])))
def test_references_are_those_of_html(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert unescaped(text) == html.unescape(text)


@pytest.mark.parametrize("digits", [100, 4301, 1_000_000])
def test_a_number_of_any_length_is_no_character(digits: int) -> None:
    assert in_time(lambda: unescaped(f"a&#{'9' * digits};b"))
    assert unescaped(f"a&#{'9' * digits};b") == "a\ufffdb"
    assert without_wiki_leftovers(f"[[a&#{'9' * digits};b") == "a b"


# Sentences

words = st.text("abcdefgh", min_size=1, max_size=9)
prose = st.lists(
    st.builds(
        lambda first, rest, end: f"{first.title()} {' '.join(rest)}{end}",
        words,
        st.lists(words, min_size=1, max_size=12),
        st.sampled_from([".", "!", "?", ' "so it is."', " (as before).", " «Why?»"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=scaled(12), deadline=None)
@given(prose, st.sampled_from(["en", "fr", "de"]))
def test_prose_of_any_length_has_the_sentences_of_the_library(given: list[str], code: str) -> None:
    for times in (1, 40):
        paragraph = " ".join(given * times)[:12_000]
        assert split_sentences(code, paragraph) == list(sentencex.segment(code, paragraph))


@few
@given(repeated, st.sampled_from(["en", "zh", "hi"]))
@example("« a. " * 8000, "en")
@example("\u2018``" * 12_000, "en")
@example("word " * 8000, "en")
@example("x" * 40_000, "en")
def test_sentences_are_the_paragraph_and_the_work_is_linear(text: str, code: str) -> None:
    paragraph = " ".join(text.split())
    windows: list[str] = []

    def segment(language: str, window: str) -> list[str]:
        windows.append(window)
        return list(sentencex.segment(language, window))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sentences, "segment", segment)
        found = split_sentences(code, paragraph)
    assert "".join(found) == paragraph
    assert sum(map(len, windows)) <= 4 * len(paragraph) + WINDOWS[0]
    for window in windows:
        marks = sum(c == "`" or unicodedata.category(c).startswith("P") for c in window)
        assert marks * len(window) <= MOST_WORK or len(window) <= WINDOWS[-1]


def test_a_sentence_that_is_longer_than_a_window_stays_whole() -> None:
    long = "Word " + "word " * 3000 + "end."
    assert split_sentences("en", f"So. {long} And.") == ["So. ", f"{long} ", "And."]


def test_quotations_of_ordinary_length_stay_whole_in_long_paragraphs() -> None:
    for begin, end in ('""', "()", "“”", "\u201b\u201b", "«»"):
        said = f"He said {begin}It is so. Is it? It is.{end} and went. "
        assert split_sentences("en", said * 500) == [said] * 500


# Regular expressions

# Patterns that are only matched at one position, or against a whole text.
MATCHED = {"_WIKI_DEBRIS", "GAP", "CODE", "SPLIT"}
MATCHED_WHOLE = {
    *("SENTENCES", "FILE_NAME", "COMMIT", "HUB_ID"),
    *("QUOTED", "NUMBER", "WHOLE", "WITH_COMMA", "_TAG"),
}


@cache
def all_patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """Return all compiled patterns of the package, by module and name."""
    patterns = []
    for found in pkgutil.walk_packages(sqzb.__path__, "sqzb."):
        if found.name == "sqzb.__main__":
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                patterns.append((found.name, name, value))
    return patterns


@few
@given(repeated)
@example("x <ref " * 6000)
@example("x" + "=" * LENGTH + "x")
@example("1" * LENGTH)
@example("<br " * 10_000)
@example(" " * LENGTH + "x")
def test_every_pattern_of_the_package_is_linear(text: str) -> None:
    for module, name, pattern in all_patterns():
        function: Callable[[str], object] = pattern.findall
        if name in MATCHED | MATCHED_WHOLE:
            function = pattern.match if name in MATCHED else pattern.fullmatch
        assert in_time(partial(function, text)), f"{module}.{name}"


@few
@given(repeated)
@example("x <ref " * 6000)
@example("x" + "=" * LENGTH + "x")
@example("a" + "\u0301" * 20_000 + "\u0327" * 20_000)
def test_cleaning_is_linear(text: str) -> None:
    assert in_time(lambda: without_wiki_leftovers(text))
    assert in_time(lambda: normalized(text))
