"""Cleaning loses nothing but what the rules name, and every rule counts what it took away."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from sqzb.corpus.text import (
    DROPPING,
    ENDLESS,
    KEPT,
    NO_ENDS,
    NOT_ENGLISH,
    READ,
    SAMPLED,
    SHORT,
    UNICODE,
    WHITE_SPACE,
    WIKI,
    Cleaner,
    copies,
    without_wiki_leftovers,
)
from sqzb.recipe import CorpusRecipe, Source

UNLIKELY = 1e-4  # the draws are fixed, so a statistic that is in order now stays so

pieces = st.sampled_from(
    [
        *"aAB é.?!,\"'()\n\t\r\u00a0\u200b\ufeff\ufffd\u2028\x00\x07\x85中。1",
        *(
            "the ",
            "and ",
            "Dr. ",
            ". ",
            "\r\n",
            "\n\n",
            "e\u0301",
            "\u0301",
            "\u1112\u1161",
            "x" * 60,
        ),
        *("👩\u200d👩\u200d👧", "שלום. ", "\u200fمرح؟ ", "می\u200cخوم"),
    ]
)
wiki_pieces = st.sampled_from(
    [
        "[[",
        "]]",
        "{{",
        "}}",
        "<ref>",
        "</ref>",
        "<br/>",
        "[1]",
        "( ,",
        "&nbsp;",
        "&#x200b;",
        "&#0;",
        "&lt;",
        "|",
    ]
)
texts = st.lists(pieces, max_size=40).map("".join) | st.text(max_size=80)
wiki_texts = st.lists(pieces | wiki_pieces, max_size=40).map("".join)


def cleaner(weight: float = 1.0, wiki: bool = False, least: int = 1, **keys: int | bool) -> Cleaner:
    recipe = CorpusRecipe.model_validate({"min_characters": least, **keys})
    return Cleaner(recipe, Source(path="x", weight=weight, wiki_leftovers=wiki))


def sentences(of: Cleaner, text: str) -> list[str]:
    document = of.document(text)
    return [] if document is None else document.sentences


def visible(text: str) -> str:
    """The characters that are neither white space nor control characters nor stand for nothing."""
    kept = (
        c
        for c in unicodedata.normalize("NFC", text)
        if not c.isspace() and c not in "\u200b\ufeff\ufffd"
    )
    return "".join(c for c in kept if unicodedata.category(c) != "Cc")


@given(texts)
@example('He said "Stop." (Then.) Dr. X. went. ... And?! So')
def test_sentences_hold_all_that_can_be_seen_in_order(text: str) -> None:
    assert visible("".join(sentences(cleaner(), text))) == visible(text)


@given(texts | wiki_texts, st.booleans())
@example("e[1]\u0301 and a &#x200b; b &#0; c", True)
def test_sentences_are_normal(text: str, wiki: bool) -> None:
    for sentence in sentences(cleaner(wiki=wiki), text):
        assert (
            sentence
            and sentence == " ".join(sentence.split())
            and unicodedata.is_normalized("NFC", sentence)
        )
        assert not any(
            unicodedata.category(c) == "Cc" or c in "\u200b\ufeff\ufffd" for c in sentence
        )


@given(st.lists(texts | wiki_texts, max_size=4), st.booleans())
def test_sentences_never_pass_paragraphs(blocks: list[str], wiki: bool) -> None:
    whole = sentences(cleaner(wiki=wiki), "\n\n".join(blocks))
    assert whole == [
        sentence for block in blocks for sentence in sentences(cleaner(wiki=wiki), block)
    ]


def test_paragraphs_are_parted_by_blank_lines_alone() -> None:
    text = "One\nline. \r\n \t\r\nTwo\u200b  lines. Three.\n\n\n\n\x07\n\n"
    assert sentences(cleaner(), text) == ["One line.", "Two lines.", "Three."]
    assert sentences(cleaner(), "A heading\n\nOne. Two.") == ["A heading", "One.", "Two."]


@given(
    st.lists(texts | wiki_texts, max_size=6),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
)
def test_every_byte_and_every_document_is_counted_once(
    read: list[str], weight: float, least: int, english: bool, wiki: bool
) -> None:
    of = cleaner(weight, wiki, least, english_only=english, max_sentence_characters=100)
    kept = [document for document in map(of.document, read) if document is not None]
    sizes = {what: count["bytes"] for what, count in of.counts.items()}
    numbers = {what: count["documents"] for what, count in of.counts.items()}
    assert sizes.pop(READ) == sum(len(text.encode()) for text in read) == sum(sizes.values())
    assert (
        numbers[READ] == len(read) == numbers[KEPT] + sum(numbers.get(rule, 0) for rule in DROPPING)
    )
    assert numbers[KEPT] == len(kept)
    assert sizes[KEPT] == sum(document.size for document in kept)
    assert all(document.size == len("\n".join(document.sentences).encode()) for document in kept)


@given(texts, texts)
def test_keys_are_equal_for_equal_text(one: str, other: str) -> None:
    first, second = cleaner().document(one), cleaner(0.999, seed=1).document(other)
    if first is not None and second is not None:
        assert 0 <= first.key < 2**64
        assert (first.key == second.key) == (first.sentences == second.sentences)


def counted(of: Cleaner) -> dict[str, tuple[int, int]]:
    return {
        what: (count["documents"], count["bytes"])
        for what, count in of.counts.items()
        if what not in (READ, KEPT)
    }


def test_each_changing_rule_counts_what_it_took() -> None:
    of = cleaner(wiki=True, max_sentence_characters=100)
    of.document(
        "A\x00\x01b.\r\n\r\nC"
    )  # two control characters become a space, and CRLF is one byte less
    assert counted(of) == {UNICODE: (1, 1 + 2), WHITE_SPACE: (1, 1)}
    of.document("A  b.   C.\n\n\n\nd")
    assert counted(of)[WHITE_SPACE] == (2, 1 + 1 + 2 + 3)
    of.document("A[1] b.\n\n{{a}}\n\nc")
    assert counted(of)[WIKI] == (1, 3 + 6) and counted(of)[WHITE_SPACE] == (3, 7 + 2)
    of.document("A\n\n" + "b" * 101 + "\n\n" + "c" * 100)
    assert counted(of)[ENDLESS] == (1, 102)


def test_the_least_length_is_kept() -> None:
    of = cleaner(least=5)
    assert sentences(of, "abcde") and not sentences(of, " abcd ")
    assert counted(of)[SHORT] == (1, 4)


def test_a_document_without_sentence_ends_is_dropped_by_that_rule() -> None:
    of = cleaner(least=50, max_sentence_characters=100)
    assert not sentences(of, "word " * 40)
    assert counted(of)[NO_ENDS][0] == 1 and SHORT not in counted(of)
    assert not sentences(of, "A short one.")
    assert counted(of)[SHORT][0] == 1 and counted(of)[NO_ENDS][0] == 1


def test_the_longest_sentence_is_kept() -> None:
    found = sentences(
        cleaner(max_sentence_characters=100), f"{'a' * 100}\n\n{'b' * 101}\n\n{'c' * 99}."
    )
    assert found == ["a" * 100, "c" * 99 + "."]


@pytest.mark.parametrize("kept", ["The end of it.", "WITH me and you", "have\n\nto"])
@pytest.mark.parametrize(
    "dropped", ["The only one. The one.", "der Fluss, to", "of. and. with. that.", "中文。"]
)
def test_english_has_two_of_eight_words(kept: str, dropped: str) -> None:
    of = cleaner(english_only=True)
    assert sentences(of, kept) and not sentences(of, dropped) and sentences(cleaner(), dropped)
    assert counted(of)[NOT_ENGLISH][0] == 1


def test_a_weight_under_one_takes_its_share_and_the_same_documents_each_time() -> None:
    read = [f"Document {number}." for number in range(1500)]
    one, again, other = cleaner(0.3), cleaner(0.3), cleaner(0.3, seed=1)
    kept = [text for text in read if one.document(text)]
    assert stats.binomtest(len(kept), len(read), 0.3).pvalue > UNLIKELY
    assert [text for text in reversed(read) if again.document(text)] == kept[::-1]
    assert [text for text in read if other.document(text)] != kept
    assert counted(one)[SAMPLED][0] == len(read) - len(kept)


@given(st.floats(0.01, 20), st.integers(0, 2**64 - 1))
def test_copies_are_the_weight_on_average_and_its_whole_part_at_least(
    weight: float, seed: int
) -> None:
    drawn = copies(weight, seed, np.arange(2000))
    further = drawn - int(weight)
    assert set(further.tolist()) <= {0, 1}
    assert stats.binomtest(int(further.sum()), len(drawn), weight - int(weight)).pvalue > UNLIKELY
    assert copies(weight, seed, np.uint64(7)) == drawn[7]


@pytest.mark.parametrize("weight", [1, 3])
def test_copies_of_a_whole_weight_are_this(weight: int) -> None:
    assert (copies(weight, 0, np.arange(1000)) == weight).all()


@pytest.mark.parametrize(
    ("paragraph", "left"),
    [
        ("{{Infobox person | name = X", ""),
        ("| born = 1950", ""),
        ("}}", ""),
        ("! Year", ""),
        ("It was {{cvt|3|km}} long", ""),
        ("thumb|A view", ""),
        ("200px|left|A view", ""),
        ("Category: Rivers", ""),
        ("File:View.jpg", ""),
        ("#if: x", ""),
        ('So it was.<ref name="a">Book, p. 3</ref> And', "So it was. And"),
        ('So it was.<ref name="a"/> And', "So it was. And"),
        ("A <b>bold</b> <br /> word", "A bold word"),
        ("A [[river]] flows [ [update]] on", "A river flows on"),
        ("So it was.[12] And", "So it was. And"),
        ("Rome (; ) is", "Rome () is"),
        ("Rome () is ( ) so", "Rome is so"),
        ("Rome (, 753 BC) is", "Rome (753 BC) is"),
        ("== Early life ==", "Early life"),
        ("where formula_12 is", "where formula is"),
        ("Tom &amp; Ann&nbsp;B. &quot;x&quot; &#233;", 'Tom & Ann B. "x" é'),
        ("<br>", ""),
    ],
)
def test_wiki_leftovers(paragraph: str, left: str) -> None:
    assert without_wiki_leftovers(paragraph) == left


@pytest.mark.parametrize(
    "paragraph",
    [
        "He (born 1950; died 2001) said [sic] that AT&T and R&D, Ltd. & Co. are so [...].",
        "Here x = y, 3 > 2, f(x) and a[i] stand; see p. [a].",
        "The category: rivers. A file: none. An image, and a formula!",
        "What! No? - No! ",
    ],
)
def test_prose_stays_as_it_is(paragraph: str) -> None:
    assert without_wiki_leftovers(paragraph) == paragraph


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="<{}|[]&=(_#:"), max_size=60) | texts
)
def test_text_without_signs_is_returned_as_it_is(text: str) -> None:
    plain = text.replace("(", "").replace("<", "")
    assert without_wiki_leftovers(plain) == plain
