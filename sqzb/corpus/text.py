"""A document's text to sentences: cleaned by rules, each of which counts what it took away."""

import hashlib
import html
import re
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sentencex import segment

from sqzb.draws import uniform
from sqzb.recipe import CorpusRecipe, Source

# The rules in the order in which they are applied. The first four change documents, the others drop them whole.
UNICODE, WHITE_SPACE, WIKI, ENDLESS = CHANGING = ("unicode", "white space", "wiki leftovers", "endless sentences")
SHORT, NOT_ENGLISH, SAMPLED = DROPPING = ("too short", "not English", "not sampled")
READ, KEPT = "read", "kept"

_BLANK_LINES = re.compile(r"\n\s*\n")
# Control characters, line and paragraph separators, the zero-width space, byte order marks, and what stands for bytes
# that could not be read. Joiners and marks of direction stay: Persian and emoji need them, and BERT skips them.
_UNSEEN = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028\u2029\ufeff\ufffd]+")

_WIKI_SIGNS = re.compile(r"[<{}|]|\[ ?\[|\]\]|\( ?[,;)]|\[\d|&[a-z#]|formula_|#if:|^=|^! |^(?:Category|File|Image):")
# Paragraphs that are the inside of a template, a table, an image or a category.
_WIKI_DEBRIS = re.compile(
    r"[|{}]|! |.*(?:\{\{|\}\}|\{\||\|\}|#if:)|(?:thumb|left|right|\d+px)\||(?:Category|File|Image):"
)
_TAGS = (
    "ref|references|nowiki|noinclude|includeonly|onlyinclude|gallery|math|poem|br|hr|small|big|sup|sub|span|div|center|"
    "font|blockquote|code|tt|var|table|tr|td|th|ul|ol|li|b|i|u|s|p"
)
_WIKI_MARKS = re.compile(
    rf"<ref\b[^<>]*/>|<ref\b.*?</ref>|</?(?:{_TAGS})(?: [^<>]*)? ?/?>"  # notes and tags
    r"|\[ ?\[ ?update\]\]|\[\[|\]\]|\[\d{1,3}\]"  # links and the numbers of notes
    r"|\( ?\)|(?<=\()(?: ?[,;])+ ?"  # brackets that lost all or the first of their content
    r"|^=+ ?| ?=+$|(?<=\bformula)_\d+"
)

_COPIES = 3  # parts these draws from others under a document's key
_ENGLISH = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))  # Gopher's rule (Rae et al. 2021)


class Document(NamedTuple):
    """A cleaned document."""

    key: int  # 64 bits of a hash of its text
    size: int  # bytes of its text
    sentences: list[str]


class Cleaner:
    """The rules of a recipe for one source.

    `counts` learns, for "read", "kept" and each rule, of documents and bytes; the bytes read are those kept and those
    that the rules took away.
    """

    def __init__(self, recipe: CorpusRecipe, source: Source) -> None:
        self._recipe, self._source = recipe, source
        self.counts: dict[str, dict[str, int]] = {what: {"documents": 0, "bytes": 0} for what in (READ, KEPT)}

    def document(self, text: str) -> Document | None:
        """The document that is left of a text; None if a rule drops it."""
        self._count(READ, size_of(text))
        sentences = self._clean(text)
        cleaned = "\n".join(sentences)
        raw = cleaned.encode()
        key = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
        rule = self._dropped_by(cleaned, key)
        self._count(rule or KEPT, len(raw))
        return Document(key, len(raw), sentences) if rule is None else None

    def _dropped_by(self, cleaned: str, key: int) -> str | None:
        if len(cleaned) < self._recipe.min_characters:
            return SHORT
        if self._recipe.english_only and len(_ENGLISH.intersection(cleaned.lower().split())) < 2:
            return NOT_ENGLISH
        if self._source.weight < 1 and not copies(self._source.weight, self._recipe.seed, np.uint64(key)):
            return SAMPLED
        return None

    def _clean(self, text: str) -> list[str]:
        visible = _seen(text.replace("\r\n", "\n"))
        self._changed(UNICODE, text, visible)
        paragraphs = [found for block in _BLANK_LINES.split(visible) if (found := " ".join(block.split()))]
        spaced = "\n".join(paragraphs)
        if self._source.wiki_leftovers:
            paragraphs = [found for paragraph in paragraphs if (found := without_wiki_leftovers(paragraph))]
            self._changed(WIKI, spaced, "\n".join(paragraphs))
        said = [found for p in paragraphs for s in segment(self._recipe.language, p) if (found := s.strip())]
        ended = [sentence for sentence in said if len(sentence) <= self._recipe.max_sentence_characters]
        one_a_line = "\n".join(said)
        self._changed(ENDLESS, one_a_line, "\n".join(ended))
        # A line for each sentence may take more bytes than the white space that was there.
        between = size_of("\n".join(paragraphs)) - size_of(one_a_line)
        self._changed(WHITE_SPACE, visible, spaced, between)
        return ended

    def _changed(self, rule: str, before: str, after: str, further: int = 0) -> None:
        if before != after or further:
            self._count(rule, size_of(before) - size_of(after) + further)

    def _count(self, what: str, size: int) -> None:
        of = self.counts.setdefault(what, {"documents": 0, "bytes": 0})
        of["documents"] += 1
        of["bytes"] += size


def copies(weight: float, seed: int, keys: ArrayLike) -> NDArray[np.int64]:
    """How often documents are taken: `weight` on average, its whole part at least."""
    return np.floor(weight + uniform(seed, _COPIES, keys)).astype(np.int64)


def size_of(text: str) -> int:
    """Bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def without_wiki_leftovers(paragraph: str) -> str:
    """A paragraph of an extracted wiki page without what the extractor left of its markup; empty if that was all."""
    if not _WIKI_SIGNS.search(paragraph):
        return paragraph
    if _WIKI_DEBRIS.match(paragraph):
        return ""
    return " ".join(_seen(html.unescape(_WIKI_MARKS.sub("", paragraph))).split())


def _seen(text: str) -> str:
    return _UNSEEN.sub(" ", unicodedata.normalize("NFC", text))
