"""A document's text to sentences: cleaned by rules, each of which counts what it dropped."""

import re
import unicodedata
from collections import Counter

from sentencex import segment

_BLANK_LINES = re.compile(r"\n\s*\n")
_UNSEEN = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]+")


def clean(text: str) -> list[str]:
    """Paragraphs of normalised text: composed Unicode (NFC), no control characters, single spaces."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n"))
    paragraphs = (" ".join(_UNSEEN.sub(" ", paragraph).split()) for paragraph in _BLANK_LINES.split(text))
    return [paragraph for paragraph in paragraphs if paragraph]


def sentences(text: str, language: str, min_characters: int, counts: Counter[str]) -> list[str]:
    """The sentences of a document, or none if a rule drops it; `counts` learns of both."""
    counts["documents_read"] += 1
    counts["characters_read"] += len(text)
    paragraphs = clean(text)
    if sum(map(len, paragraphs)) < min_characters:
        counts["documents_dropped_short"] += 1
        counts["characters_dropped_short"] += len(text)
        return []
    found = [stripped for p in paragraphs for s in segment(language, p) if (stripped := s.strip())]
    counts["documents_kept"] += 1
    counts["sentences"] += len(found)
    return found
