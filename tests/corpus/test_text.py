"""Cleaning and splitting lose nothing but what the rules name, and every rule counts."""

import unicodedata
from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from sqzb.corpus.text import clean, sentences

letters = st.sampled_from("aAbB é.?!,\"'()\n\t\r\u00a0\u200b\ufeff\x00中。1")
prose = st.text(letters, max_size=200) | st.text(max_size=80)


def visible(text: str) -> str:
    """The characters that are neither white space nor control characters nor unassigned to anything seen."""
    kept = (c for c in unicodedata.normalize("NFC", text) if not c.isspace())
    return "".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cf") and c != "\ufffd")


@given(prose)
def test_paragraphs_are_normal_and_keep_what_can_be_seen(text: str) -> None:
    paragraphs = clean(text)
    for paragraph in paragraphs:
        assert paragraph and paragraph == " ".join(paragraph.split()) and unicodedata.is_normalized("NFC", paragraph)
        assert not any(unicodedata.category(c) == "Cc" for c in paragraph)
    assert visible("".join(paragraphs)) == visible(text)


def test_paragraphs_are_parted_by_blank_lines_alone() -> None:
    assert clean("One\nline. \r\n \t\r\nTwo\u200b  lines.\n\n\n\n\x07\n\n") == ["One line.", "Two lines."]


@given(prose)
@example('He said "Stop." (Then.) Dr. X. went. ... And?! So')
def test_sentences_hold_the_whole_text_in_order(text: str) -> None:
    counts: Counter[str] = Counter()
    found = sentences(text, "en", 1, counts)
    assert "".join("".join(found).split()) == "".join("".join(clean(text)).split())
    assert all(sentence and sentence == sentence.strip() for sentence in found)
    assert counts["sentences"] == len(found)


def test_sentences_do_not_pass_paragraphs() -> None:
    assert sentences("A heading\n\nOne. Two.", "en", 1, Counter()) == ["A heading", "One.", "Two."]


@given(st.lists(prose, max_size=5), st.integers(1, 50))
def test_every_document_is_counted_once(texts: list[str], least: int) -> None:
    counts: Counter[str] = Counter()
    kept = [bool(sentences(text, "en", least, counts)) for text in texts]
    assert counts["documents_read"] == len(texts) == counts["documents_kept"] + counts["documents_dropped_short"]
    assert counts["documents_kept"] == sum(kept)
    assert counts["characters_read"] == sum(map(len, texts))
    dropped = [len(text) for text, keep in zip(texts, kept, strict=True) if not keep]
    assert counts["characters_dropped_short"] == sum(dropped)


def test_the_least_length_is_kept() -> None:
    assert sentences("abcde", "en", 5, Counter()) and not sentences(" abcd ", "en", 5, Counter())
