"""Words and characters of the text that a vocabulary is trained on."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from itertools import accumulate
from typing import TextIO

import numpy as np
from tokenizers import normalizers, pre_tokenizers

# Number of distinct characters in a vocabulary: a twentieth of its tokens, within these bounds.
# BERT's own vocabulary has 1,000. Where these cover less than COVERED of the text's characters, as
# in Chinese or Korean, the alphabet grows until they do (SentencePiece's character_coverage), or
# until it fills ALPHABET_SHARE of the vocabulary.
ALPHABET = (100, 1000)
COVERED = 0.9995
ALPHABET_SHARE = 0.75
LONGEST_WORD = 100  # characters; a longer word is [UNK]
# Share of the characters in longer words from which a new tokenizer divides such words. Scripts
# without spaces between words, such as Thai, have it; other texts keep BERT's rule.
LONG_WORDS = 0.001
# Total length of the distinct words that a vocabulary is trained on; the library takes about 150
# bytes a character. English text has few distinct words, but a script without spaces has nearly as
# many characters in distinct words as in the whole text.
WORD_CHARACTERS = 4_000_000

_LONG = re.compile(rf"(?<!\S)\S{{{LONGEST_WORD + 1},}}")


def keep_lines(texts: Iterable[str], file: TextIO) -> Iterator[str]:
    """Yield the texts, and write each as lines to a file."""
    for text in texts:
        file.write(text + "\n")
        yield text


def rare_characters(vocab_size: int, texts: Iterable[str]) -> str:
    """Return all characters of the texts but white space and the alphabet of the vocabulary."""
    counts: Counter[int] = Counter()
    for text in texts:
        points, n = np.unique(
            np.frombuffer(text.encode("utf-32-le"), np.uint32), return_counts=True
        )
        counts.update(dict(zip(points.tolist(), n.tolist(), strict=True)))
    ranked = sorted(
        (p for p in counts if not chr(p).isspace()), key=lambda point: (-counts[point], point)
    )
    at_least, at_most = ALPHABET
    usual = min(at_most, max(at_least, vocab_size // 20))
    uncovered = sum(counts[point] for point in ranked) * (1 - COVERED)
    uncovered -= sum(counts[point] for point in ranked[usual:])
    entries = sum(map(_entries, ranked[:usual]))
    size = usual
    for point in ranked[usual:]:
        entries += _entries(point)
        if uncovered >= 0 or entries > vocab_size * ALPHABET_SHARE:
            break
        uncovered += counts[point]
        size += 1
    return "".join(map(chr, ranked[size:]))


def _entries(point: int) -> int:
    """Return the entries of a character: 1 where it is a word of its own, as Chinese, else 2."""
    normalized = normalizers.BertNormalizer(lowercase=False).normalize_str(chr(point))
    return 1 if normalized.startswith(" ") else 2


def has_long_words(texts: Iterable[str]) -> bool:
    """Whether more than LONG_WORDS of the characters are in words that WordPiece does not read."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    characters = in_long_words = 0
    for text in texts:
        for match in _LONG.finditer(text):
            lengths = (end - start for _, (start, end) in split(match[0]))
            in_long_words += sum(length for length in lengths if length > LONGEST_WORD)
        characters += len(text)
    return in_long_words > characters * LONG_WORDS


def lines_without(rare: str, file: TextIO) -> Iterator[str]:
    """Yield the lines of a file from its start, with blanks in place of the rare characters."""
    file.seek(0)
    if not rare:
        yield from file
        return
    unwanted = re.compile(f"[{re.escape(rare)}]")
    for line in file:
        yield unwanted.sub(" ", line)


def distinct_words(texts: Iterable[str]) -> Set[str]:
    """Return the distinct words of the texts, of WORD_CHARACTERS characters in all at most.

    When there are too many, the rarest words so far are dropped; if they occur again, their count
    starts from zero (lossy counting).
    """
    counts: dict[str, int] = {}
    characters = 0
    for text in texts:
        for match in re.finditer(r"\S+", text):
            word = match[0]
            times = counts[word] = counts.get(word, 0) + 1
            characters += len(word) if times == 1 else 0
            if characters > WORD_CHARACTERS:
                counts = _commonest(counts, WORD_CHARACTERS // 2)
                characters = sum(map(len, counts))
    return counts.keys()


def _commonest(counts: dict[str, int], characters: int) -> dict[str, int]:
    """Return the most common words, of `characters` characters in all at most; ties keep order."""
    ranked = sorted(counts, key=lambda word: -counts[word])
    ends = accumulate(map(len, ranked))
    return {word: counts[word] for word, end in zip(ranked, ends, strict=True) if end <= characters}
