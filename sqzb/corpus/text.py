"""Documents, cleaned and split into sentences by rules that count what they take away."""

import hashlib
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.corpus.linear import normalized, unescaped
from sqzb.corpus.sentences import split_sentences
from sqzb.draws import uniform
from sqzb.recipe import CorpusRecipe, Source

# The rules in the order in which they are applied.
# Rules that change documents:
CHANGING = ("unicode", "white space", "wiki leftovers", "endless sentences")
UNICODE, WHITE_SPACE, WIKI, ENDLESS = CHANGING
# Rules that drop documents:
DROPPING = ("too short", "no sentence ends", "not English", "not sampled")
SHORT, NO_ENDS, NOT_ENGLISH, SAMPLED = DROPPING
READ, KEPT = "read", "kept"

_BLANK_LINES = re.compile(r"\n\s*\n")
# Control characters, line and paragraph separators, the zero-width space, byte order marks, and the
# replacement character of unreadable bytes. Joiners and direction marks are kept: Persian and emoji
# need them, and BERT ignores them.
_INVISIBLE = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028\u2029\ufeff\ufffd]+")

# A paragraph without any of these has no markup.
_WIKI_SIGNS = re.compile(
    r"[<{}|]|\[ ?\[|\]\]|\( ?[,;)]|\[\d|&[a-z#]"
    r"|formula_|#if:|^=|^! |^(?:Category|File|Image):"
)
# Paragraphs that are the inside of a template, a table, an image or a category.
_WIKI_DEBRIS = re.compile(
    r"[|{}]|! |.*(?:\{\{|\}\}|\{\||\|\}|#if:)"
    r"|(?:thumb|left|right|\d+px)\||(?:Category|File|Image):"
)
_TAGS = (
    "ref|references|nowiki|noinclude|includeonly|onlyinclude|gallery|math|poem|br|hr|small|big|sup|"
    "sub|span|div|center|font|blockquote|code|tt|var|table|tr|td|th|ul|ol|li|b|i|u|s|p"
)
_NOTE_END = "</ref>"
_LONG_NOTE = rf"<ref\b.*?{_NOTE_END}|"
_OTHER_MARKS = (
    rf"</?(?:{_TAGS})(?: [^<>]*)? ?/?>"
    r"|\[ ?\[ ?update\]\]|\[\[|\]\]|\[\d{1,3}\]"  # links and the numbers of notes
    r"|\( ?\)|(?<=\()(?: ?[,;])+ ?"  # brackets that lost all or the first of their content
    r"|(?<=\bformula)_\d+"
)
_SHORT_NOTE = r"<ref\b[^<>]*/>|"
# Behind the last </ref>, each <ref would be searched for it in vain, up to the paragraph's end.
_MARKS_WITH_NOTES = re.compile(_SHORT_NOTE + _LONG_NOTE + _OTHER_MARKS)
_MARKS_WITHOUT_NOTES = re.compile(_SHORT_NOTE + _OTHER_MARKS)

_COPIES = 3  # distinguishes these draws from others under a document's key

# Gopher's rule (Rae et al. 2021): an English document has at least two of these words.
_ENGLISH = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))


class Document(NamedTuple):
    """A cleaned document."""

    key: int  # 64 bits of a hash of its text
    size: int  # bytes of its text
    sentences: list[str]


class Cleaner:
    """The cleaning rules of a recipe, for one source.

    `counts` holds documents and bytes by rule: READ, KEPT, and each rule that changed or dropped
    a document. The bytes read are the bytes kept and the bytes that the rules took away.
    """

    def __init__(self, recipe: CorpusRecipe, source: Source) -> None:
        self._recipe = recipe
        self._source = source
        self.counts: dict[str, dict[str, int]] = {}
        for rule in (READ, KEPT):
            self.counts[rule] = {"documents": 0, "bytes": 0}

    def document(self, text: str) -> Document | None:
        """Return the cleaned document of a text; None if a rule drops it."""
        self._count(READ, size_of(text))
        sentences, endless = self._clean(text)
        cleaned = "\n".join(sentences)
        raw = cleaned.encode()
        key = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")

        rule = self._dropped_by(cleaned, endless, key)
        if rule is not None:
            self._count(rule, len(raw))
            return None
        self._count(KEPT, len(raw))
        return Document(key, len(raw), sentences)

    def _dropped_by(self, cleaned: str, endless: int, key: int) -> str | None:
        """Return the rule that drops a document; None if the document is kept.

        endless: characters that the rule ENDLESS took from the document.
        """
        least = self._recipe.min_characters
        if len(cleaned) < least:
            return SHORT if len(cleaned) + endless < least else NO_ENDS
        if self._recipe.english_only:
            words = cleaned.lower().split()
            if len(_ENGLISH.intersection(words)) < 2:
                return NOT_ENGLISH
        weight = self._source.weight
        if weight < 1 and not copies(weight, self._recipe.seed, np.uint64(key)):
            return SAMPLED
        return None

    def _clean(self, text: str) -> tuple[list[str], int]:
        """Return the cleaned sentences of a text, and count what each rule changed.

        The second value is the number of characters that the rule ENDLESS took.
        """
        visible = _without_invisible(text.replace("\r\n", "\n"))
        self._count_change(UNICODE, text, visible)

        paragraphs = [" ".join(block.split()) for block in _BLANK_LINES.split(visible)]
        paragraphs = [paragraph for paragraph in paragraphs if paragraph]
        spaced = "\n".join(paragraphs)

        if self._source.wiki_leftovers:
            paragraphs = [without_wiki_leftovers(paragraph) for paragraph in paragraphs]
            paragraphs = [paragraph for paragraph in paragraphs if paragraph]
            self._count_change(WIKI, spaced, "\n".join(paragraphs))

        sentences: list[str] = []
        for paragraph in paragraphs:
            for sentence in split_sentences(self._recipe.language, paragraph):
                if stripped := sentence.strip():
                    sentences.append(stripped)

        limit = self._recipe.max_sentence_characters
        kept = [sentence for sentence in sentences if len(sentence) <= limit]
        one_a_line = "\n".join(sentences)
        kept_lines = "\n".join(kept)
        self._count_change(ENDLESS, one_a_line, kept_lines)

        # A line for each sentence may take more bytes than the white space that was there.
        between = size_of("\n".join(paragraphs)) - size_of(one_a_line)
        self._count_change(WHITE_SPACE, visible, spaced, between)
        return kept, len(one_a_line) - len(kept_lines)

    def _count_change(self, rule: str, before: str, after: str, extra_bytes: int = 0) -> None:
        """Count a document and the bytes that a rule took away, if it took any."""
        if before != after or extra_bytes:
            self._count(rule, size_of(before) - size_of(after) + extra_bytes)

    def _count(self, rule: str, size: int) -> None:
        count = self.counts.setdefault(rule, {"documents": 0, "bytes": 0})
        count["documents"] += 1
        count["bytes"] += size


def copies(weight: float, seed: int, keys: ArrayLike) -> NDArray[np.int64]:
    """Return how often each document is taken: `weight` on average, its whole part at least."""
    return np.floor(weight + uniform(seed, _COPIES, keys)).astype(np.int64)


def size_of(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def without_wiki_leftovers(paragraph: str) -> str:
    """Return a paragraph of a wiki page without the markup that the extractor left.

    A paragraph that is nothing but markup becomes empty.
    """
    if not _WIKI_SIGNS.search(paragraph):
        return paragraph
    if _WIKI_DEBRIS.match(paragraph):
        return ""
    text = paragraph.strip("=")  # the signs of a heading
    notes_end = text.rfind(_NOTE_END)
    end = 0 if notes_end < 0 else notes_end + len(_NOTE_END)
    without_marks = _MARKS_WITH_NOTES.sub("", text[:end]) + _MARKS_WITHOUT_NOTES.sub("", text[end:])
    return " ".join(_without_invisible(unescaped(without_marks)).split())


def _without_invisible(text: str) -> str:
    """Return a text in Unicode's normal form C, with spaces in place of invisible characters."""
    return _INVISIBLE.sub(" ", normalized(text))
