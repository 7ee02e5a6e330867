"""Figures of texts: lengths, and what a model does not see, against a token at a time."""

from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from conftest import WORDS
from sqzb.data.dataset import Classes, Example, Tags
from sqzb.finetuning import texts
from sqzb.finetuning.encode import encode
from sqzb.finetuning.texts import (
    Unseen,
    count_unseen,
    measure_texts,
    unseen_concerns,
    unseen_rows,
    unseen_warnings,
)
from sqzb.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 2, 200, lowercase=True)


def test_lengths_and_unknown_tokens_are_those_of_each_text(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "CHUNK", 2)
    examples = [
        Example("water river", None, 0, 0),
        Example("", None, 0, 1),
        Example("stone \u4e2d\u6587 light", "garden", 0, 2),
        Example("water " * 900, None, 0, 3),
        Example("\u4e2d", "\u6587", 0, 4),
    ]
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    figures = measure_texts(examples, tokenizer)
    assert tokenizer.truncation is not None and tokenizer.truncation["max_length"] == 8
    assert tokenizer.padding is not None and tokenizer.padding["length"] == 16

    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [tokenizer.encode(e.text_a, e.text_b).ids for e in examples]
    assert figures.lengths.tolist() == [len(of) for of in ids]
    plain = [tokenizer.encode(e.text_a, e.text_b, add_special_tokens=False).ids for e in examples]
    unknown = tokenizer.token_to_id("[UNK]")
    assert unknown is not None
    assert figures.tokens == sum(len(of) for of in plain)
    assert figures.unknown_tokens == sum(of.count(unknown) for of in plain) == 4
    assert figures.share_cut(8) == sum(len(of) > 8 for of in ids) / len(ids)
    assert figures.percentile(100) == max(len(of) for of in ids)


def test_words_are_tokenised_as_words(tokenizer: Tokenizer) -> None:
    words = ("water", "river-stone", "light")
    example = Example(" ".join(words), None, (0, 0, 0), 0, words)
    figures = measure_texts([example], tokenizer)
    assert figures.lengths.tolist() == [len(tokenizer.encode(words, is_pretokenized=True).ids)]


TOKENIZER = train_tokenizer([" ".join(WORDS)] * 2, 200, lowercase=True)
PADDED = Tokenizer.from_str(TOKENIZER.to_str())
PADDED.enable_padding(length=40)
plain = st.lists(st.sampled_from([*WORDS, "\u4e2d\u6587", "x\u0451", "[UNK]"]), max_size=12)
pairs = st.builds(
    lambda first, second: Example(
        " ".join(first), None if second is None else " ".join(second), None, 0
    ),
    plain,
    st.none() | plain,
)
tagged = st.builds(
    lambda words: Example(" ".join(words), None, (0,) * len(words), 0, tuple(words)), plain
)


def by_hand(example: Example, max_length: int) -> Unseen:
    """The counts of one example, from an encoding of its own."""
    if example.words is None:
        whole = TOKENIZER.encode(example.text_a, example.text_b)
    else:
        whole = TOKENIZER.encode(list(example.words), is_pretokenized=True)
    unknown = 0
    for token, (start, end) in zip(whole.tokens, whole.offsets, strict=True):
        unknown += end - start if token == "[UNK]" else 0
    characters = len((example.text_a + (example.text_b or "")).replace(" ", ""))
    behind = max(0, len(whole.ids) - max_length)
    mostly = int(unknown > characters / 2)
    return Unseen(1, int(behind > 0), len(whole.ids), behind, characters, unknown, mostly)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PADDED], ids=["plain", "padded"])
@given(
    examples=st.lists(pairs, max_size=5) | st.lists(tagged, max_size=5),
    max_length=st.integers(5, 30),
)
def test_what_is_not_seen_is_counted_token_by_token(
    tokenizer: Tokenizer, examples: list[Example], max_length: int
) -> None:
    is_tagged = bool(examples) and examples[0].words is not None
    kind = Tags(("O",)) if is_tagged else Classes(("a", "b"))
    encoded = encode(examples, tokenizer, max_length, kind)
    before = tokenizer.to_str()
    counts = count_unseen(examples, encoded, tokenizer, max_length)
    assert counts == reduce(add, (by_hand(one, max_length) for one in examples), Unseen())
    assert tokenizer.to_str() == before


def test_a_few_per_cent_are_warned_of_and_less_is_not() -> None:
    little = Unseen(100, 10, 1000, 20, 10_000, 300, 0)
    assert unseen_concerns("train", little, 16) == []
    assert len(unseen_warnings(little, 16)) == 1  # after predictions, any cut text is told of
    assert unseen_warnings(Unseen(100, 0, 1000, 0, 10_000, 300, 0), 16) == []
    much = Unseen(100, 11, 1000, 20, 10_000, 301, 3)
    cut, unknown = unseen_concerns("dev", much, 16)
    assert "11.0% of the dev examples are cut to 16 tokens" in cut
    assert "3.0% of the characters of the dev examples are [UNK]" in unknown
    cut, unknown = unseen_warnings(much, 16)
    assert "11 of 100 texts have more than 16 tokens" in cut and "2.0% of all tokens" in cut
    assert "3 of 100 texts are mostly [UNK]" in unknown
    assert unseen_rows({"dev": much})[1] == [("dev", "11.0%", "2.0%", "3.0%")]
    assert unseen_rows({"none": Unseen()})[1] == [("none", "0.0%", "0.0%", "0.0%")]
