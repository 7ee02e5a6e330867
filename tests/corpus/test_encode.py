"""Looking words up gives what tokenising the sentences gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike
from tokenizers import Tokenizer

from examples import scaled
from sqzb.corpus import encode
from sqzb.corpus.encode import Encoder
from sqzb.tokenizer import SPECIAL_TOKENS, load_tokenizer, special_ids, train_tokenizer

TEXTS = [
    "the river Runs to the Harbour, and naïve Élan cafés wait; 42 letters 3.14 (SEP) [mask] CLS "
    "unk pad",
    "中文 の 漢字 한국어 Ελληνικά ΟΔΟΣ Привет שלום مرحبا İstanbul ﬁne e\u0301 a\u0300 👩 …",
]
known = [
    *SPECIAL_TOKENS,
    "[SEP].",
    "x[MASK]y",
    "[SEP][SEP]",
    "[sep]",
    "##ing",
    "the",
    "River",
    "harbours!",
    "don't",
]
strange = [
    "ΟΔΟΣ",
    "İstanbul",
    "ﬁne",
    "e\u0301",
    "\u0301",
    "\u1112\u1161\u11ab",
    "中文字",
    "a中b",
    "👩\u200d👩\u200d👧",
    "ß",
]
long = ["x" * 100, "x" * 101, "é" * 101, "中" * 120, "e\u0301" * 60, f"{'x' * 101},the"]
words = st.sampled_from([*known, *strange, *long]) | st.text(
    st.characters(codec="utf-8", exclude_characters=" ")
)
batches = st.lists(st.lists(words, max_size=8).map(" ".join), max_size=6)


@pytest.fixture(scope="module", params=["fixture", "lower", "cased"])
def tokenizer(request: pytest.FixtureRequest, vocabulary: Path) -> Tokenizer:
    if request.param == "fixture":
        return load_tokenizer(vocabulary)
    return train_tokenizer(TEXTS * 3, 400, request.param == "lower")


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for which "[SEP]" is a word as any other."""
    other = Tokenizer.from_str(tokenizer.to_str())
    other.encode_special_tokens = True
    return other


def check(encoder: Encoder, plain: Tokenizer, sentences: list[str]) -> None:
    tokens, lengths = encoder.encode(sentences)
    due = [encoding.ids for encoding in plain.encode_batch(sentences, add_special_tokens=False)]
    assert np.split(tokens, np.cumsum(lengths))[-1].size == 0 and len(lengths) == len(sentences)
    assert [part.tolist() for part in np.split(tokens, np.cumsum(lengths))[:-1]] == due


@given(batches)
@example(["a [SEP] b [MASK]", "", "[CLS]", "\u0301 the\u0301"])
def test_sentences_have_the_tokens_of_the_tokenizer(
    encoder: Encoder, plain: Tokenizer, sentences: list[str]
) -> None:
    check(encoder, plain, sentences)


@settings(max_examples=scaled(10))
@given(st.lists(batches, max_size=4))
def test_what_was_learnt_or_forgotten_does_not_matter(
    tokenizer: Tokenizer, plain: Tokenizer, said: list[list[str]]
) -> None:
    for limit in ("MAX_WORDS", "MAX_CHARACTERS"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encode, limit, 5)
            encoder = Encoder(tokenizer)
            for sentences in [*said, *said]:
                check(encoder, plain, sentences)


def test_names_of_special_tokens_are_words(tokenizer: Tokenizer, encoder: Encoder) -> None:
    tokens, lengths = encoder.encode([f"the {name} of" for name in SPECIAL_TOKENS])
    ids = special_ids(tokenizer)
    assert not {ids.pad, ids.cls, ids.sep, ids.mask} & set(tokens.tolist())
    assert (lengths >= 5).all()  # two brackets at least beside the words
    assert not tokenizer.encode_special_tokens  # it has kept its own ways


@pytest.mark.parametrize(("size", "width"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_the_last_token_of_a_large_vocabulary(tmp_path: Path, size: int, width: DTypeLike) -> None:
    filling = (f"q{number}" for number in range(size - len(SPECIAL_TOKENS) - 3))
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*SPECIAL_TOKENS, *filling, "a", "##a", "b"]) + "\n"
    )
    encoder = Encoder(load_tokenizer(tmp_path / "vocab.txt"))
    tokens, lengths = encoder.encode(["aa b", "b q0 c"])
    assert tokens.dtype == encoder.dtype == width
    assert tokens.tolist() == [
        size - 3,
        size - 2,
        size - 1,
        size - 1,
        5,
        1,
    ] and lengths.tolist() == [3, 3]


def test_no_sentences_are_no_tokens(encoder: Encoder) -> None:
    tokens, lengths = encoder.encode([])
    assert tokens.shape == lengths.shape == (0,) and tokens.dtype == np.uint16
