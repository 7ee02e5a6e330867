"""Counts of the text that a model does not see: unknown tokens, and marks that are stripped."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import filterfalse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.tokenizer import CONTINUATION, MANY_UNKNOWN, UNK, strips_accents, unknown_characters

MAX_WORDS = 100_000  # words with unknown tokens to remember
MANY_STRIPPED = 0.01  # share of stripped characters from which a warning is printed
FEW_MADE = 0.9  # share of the asked tokens under which a warning is printed
CODE_POINTS = 0x110000

# The counts of a shard's record. `unknown`: characters that are in an [UNK]; `outside`: characters
# that the vocabulary lacks; `stripped`: those that lose an accent, a vowel or a tone.
COUNTED = ("characters", "unknown", "outside", "stripped")
Tokens = NDArray[np.unsignedinteger[Any]]


class SeenCounter:
    """Counts of the characters of sentences, without spaces, in `counts` by COUNTED.

    Only sentences with an unknown token, and with characters beyond ASCII, take time. An ASCII
    character counts as one that the vocabulary has.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        self._unknown_token = tokenizer.token_to_id(UNK)
        self._unknown_of: dict[str, int] = {}
        pieces = {token.removeprefix(CONTINUATION) for token in tokenizer.get_vocab()}
        self._alphabet = {piece for piece in pieces if len(piece) == 1}
        self._strips = strips_accents(tokenizer)
        # By code point: looked up already, lacked by the vocabulary, stripped.
        self._known = np.zeros(CODE_POINTS, bool)
        self._known[:128] = True
        self._outside = np.zeros(CODE_POINTS, bool)
        self._stripped = np.zeros(CODE_POINTS, bool)

    def add(self, sentences: Sequence[str], tokens: Tokens, lengths: NDArray[np.int64]) -> None:
        """Count sentences.

        tokens: of all sentences, (n_tokens). lengths: tokens of each sentence, (n).
        """
        counts = self.counts
        text = "".join(sentences)
        counts["characters"] += len(text) - text.count(" ")

        unknown = np.flatnonzero(tokens == self._unknown_token)
        if len(unknown):
            rows = np.unique(np.searchsorted(np.cumsum(lengths), unknown, side="right"))
            counts["unknown"] += self._unknown_characters([sentences[row] for row in rows])

        others = "".join(filterfalse(str.isascii, sentences))
        if others:
            points = np.frombuffer(others.encode("utf-32-le"), np.uint32)
            times = np.bincount(points)
            used = np.flatnonzero(times)
            for point in used[~self._known[used]]:
                self._look_up(int(point))
            counts["outside"] += int(times[used[self._outside[used]]].sum())
            counts["stripped"] += int(times[used[self._stripped[used]]].sum())

    def _look_up(self, point: int) -> None:
        """Find out once what happens to a character."""
        character = chr(point)
        normalized = self._tokenizer.normalizer.normalize_str(character)
        self._known[point] = True
        self._outside[point] = not self._alphabet.issuperset("".join(normalized.split()))
        self._stripped[point] = self._strips and has_mark(character)

    def _unknown_characters(self, sentences: Iterable[str]) -> int:
        """Return the number of characters in unknown tokens."""
        words: list[str] = []
        for sentence in sentences:
            words += sentence.split(" ")
        new = list(set(words).difference(self._unknown_of))
        if len(self._unknown_of) + len(new) > MAX_WORDS:
            self._unknown_of.clear()
            new = list(set(words))
        for word, encoding in zip(
            new, self._tokenizer.encode_batch(new, add_special_tokens=False), strict=True
        ):
            self._unknown_of[word] = unknown_characters(
                encoding.ids, encoding.offsets, self._unknown_token
            )
        return sum(map(self._unknown_of.__getitem__, words))


def has_mark(character: str) -> bool:
    """Whether BERT's stripping of accents removes the character or a part of it."""
    decomposed = unicodedata.normalize("NFD", character)
    return any(unicodedata.category(part) == "Mn" for part in decomposed)


# In the manifest


def total(
    records: Iterable[Mapping[str, Any]], frequencies: NDArray[np.int64], unknown: int
) -> dict[str, int] | None:
    """Return the counts of all shards; None if an older version wrote one of the records.

    frequencies: (2, vocabulary) occurrences of each token, in training and held out.
    unknown: the unknown token.
    """
    counts = dict.fromkeys(COUNTED, 0)
    for record in records:
        if "seen" not in record:
            return None
        for name in COUNTED:
            counts[name] += record["seen"][name]
    counts["tokens"] = int(frequencies.sum())
    counts["unknown_tokens"] = int(frequencies[:, unknown].sum())
    return counts


def rows(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of a table of the text that the model sees; none of an older corpus."""
    seen = manifest.get("seen")
    if seen is None:
        return []
    named = {
        "characters in [UNK]": ("unknown", "characters"),
        "characters outside the alphabet": ("outside", "characters"),
        "accents, vowels, tones stripped": ("stripped", "characters"),
        "tokens that are [UNK]": ("unknown_tokens", "tokens"),
    }
    table = [("characters", f"{seen['characters']:,}", "")]
    for name, (part, whole) in named.items():
        share = f"{seen[part] / max(1, seen[whole]):.2%}"
        table.append((name, f"{seen[part]:,}", share))
    asked = manifest.get("vocab_asked")
    if asked is not None:
        share = f"{manifest['vocab_size'] / asked:.0%}"
        table.append((f"tokens made of {asked:,} asked", f"{manifest['vocab_size']:,}", share))
    return table


def warn(manifest: Mapping[str, Any]) -> None:
    """Warn where more than a few per cent of the text are lost, with the remedy."""
    seen, asked = manifest.get("seen"), manifest.get("vocab_asked")
    if seen is None:
        return
    characters = max(1, seen["characters"])
    unknown, stripped = seen["unknown"] / characters, seen["stripped"] / characters
    if unknown > MANY_UNKNOWN:
        remedy = (
            "The loaded vocabulary does not fit this text: leave vocabulary.path out to train one, "
            "or give one for this language."
            if asked is None
            else "Raise vocabulary.size, so that the alphabet can hold more characters, and "
            "vocabulary.sample_characters, the amount of text that it is chosen from."
        )
        console.warn(
            f"{unknown:.1%} of the characters are [UNK], so the model cannot tell them apart. "
            f"{remedy}"
        )
    if stripped > MANY_STRIPPED:
        remedy = (
            "If they carry meaning, give a vocabulary that keeps them."
            if asked is None
            else "If they carry meaning, set vocabulary.strip_accents=false."
        )
        console.warn(
            f"{stripped:.1%} of the characters lose an accent, a vowel sign or a tone mark. "
            f"{remedy}"
        )
    if asked is not None and not asked * FEW_MADE <= manifest["vocab_size"] <= asked:
        remedy = (
            "The text has no more words and pieces of words: give more text, or lower "
            "vocabulary.size."
            if manifest["vocab_size"] < asked
            else "The alphabet alone takes more: raise vocabulary.size."
        )
        console.warn(
            f"The vocabulary has {manifest['vocab_size']:,} tokens, and vocabulary.size asked for "
            f"{asked:,}. {remedy}"
        )
