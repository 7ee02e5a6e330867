"""Words and several labels as token numbers, batches and logits."""

import resource
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from torch import nn

from sqzb.data.dataset import Example, Labels, Number, Tags
from sqzb.finetuning.encode import LOST, encode, on_scale
from sqzb.finetuning.predict import predict
from sqzb.model.heads import IGNORED
from sqzb.tokenizer import train_tokenizer

TAGS = Tags(("O", "B-X", "I-X"))
SEVERAL = Labels(("x", "y", "z"))
TOKENIZER = train_tokenizer(["a b c d e f g h abcd efgh"] * 3, 30, lowercase=True)

words = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return TOKENIZER


def tagged(texts: list[list[str]]) -> list[Example]:
    return [
        Example(" ".join(text), None, tuple(n % 3 for n in range(len(text))), row, tuple(text))
        for row, text in enumerate(texts)
    ]


@given(st.lists(words, max_size=4), st.integers(8, 20))
def test_a_word_is_at_its_first_token(texts: list[list[str]], max_length: int) -> None:
    encoded = encode(tagged(texts), TOKENIZER, max_length, TAGS)
    assert encoded.words is not None
    assert len(encoded.labels) == len(encoded.words.places) == sum(map(len, texts))
    for row, text in enumerate(texts):
        ids = encoded.ids[row]
        assert len(ids) <= max_length
        pieces = [TOKENIZER.encode(word, add_special_tokens=False).ids for word in text]
        start = 1
        for place, word in zip(encoded.words.places[encoded.words.of(row)], pieces, strict=True):
            if start < max_length - 1:
                assert place == start
                end = min(start + len(word), max_length - 1)
                assert ids[start:end] == word[: end - start]
            else:
                assert place == LOST
            start += len(word)


@given(st.lists(words, min_size=1, max_size=4))
def test_a_batch_has_tags_at_first_tokens_only(texts: list[list[str]]) -> None:
    encoded = encode(tagged(texts), TOKENIZER, 12, TAGS)
    assert encoded.words is not None
    rows = [len(texts) - 1, -1, 0]
    labels = encoded.batch(rows)["labels"].numpy()
    assert (labels[1] == IGNORED).all()
    for place in (0, 2):
        places = encoded.words.places[encoded.words.of(rows[place])]
        seen = places != LOST
        due = encoded.labels[encoded.words.of(rows[place])]
        assert (labels[place, places[seen]] == due[seen]).all()
        assert (labels[place] != IGNORED).sum() == seen.sum()


def test_the_first_examples_have_their_words(tokenizer: Tokenizer) -> None:
    encoded = encode(tagged([["a", "b"], ["c"], ["abcd", "e"]]), tokenizer, 16, TAGS)
    first = encode(tagged([["a", "b"], ["c"]]), tokenizer, 16, TAGS)
    assert encoded.first(2).sha256 == first.sha256 != encoded.sha256


def test_words_of_another_division_are_another_set(tokenizer: Tokenizer) -> None:
    """The same tokens and tags, of which another one is a word's first."""
    encoded = encode(tagged([["ab", "c"]]), tokenizer, 16, TAGS)
    assert encoded.words is not None
    moved = encoded._replace(words=encoded.words._replace(places=encoded.words.places[::-1]))
    assert moved.sha256 != encoded.sha256


def test_withheld_tags_and_labels_do_not_count(tokenizer: Tokenizer) -> None:
    withheld = [Example("a b", None, None, 0, ("a", "b"))]
    assert (encode(withheld, tokenizer, 8, TAGS).labels == [IGNORED] * 2).all()
    assert (encode(withheld, tokenizer, 8, SEVERAL).labels == [[IGNORED] * 3]).all()


def test_several_labels_are_rows_of_ones(tokenizer: Tokenizer) -> None:
    examples = [Example("a", None, (0, 2), 0), Example("b", None, (), 1)]
    encoded = encode(examples, tokenizer, 8, SEVERAL)
    assert encoded.labels.dtype == np.float32
    assert encoded.labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    labels = encoded.batch([1, -1, 0])["labels"]
    assert labels.tolist() == [[0, 0, 0], [IGNORED] * 3, [1, 0, 1]]
    twice = encoded.with_more(encoded)
    assert twice.labels.shape == (4, 3)


def test_a_number_that_looks_like_no_label_counts_on_its_scale(tokenizer: Tokenizer) -> None:
    kind = Number(-100, 0, mean=-50.0, std=25.0)
    encoded = encode([Example("a", None, -100.0, 0)], tokenizer, 8, kind)
    scaled = on_scale(kind, encoded)
    assert scaled.batch([0, -1])["labels"].tolist() == [-2.0, IGNORED]
    assert encoded.labels.tolist() == [-100.0]


pieces = st.lists(st.text("abcdefgh", min_size=1, max_size=6), max_size=60).map(" ".join)
TEMPLATES = [
    TOKENIZER.post_processor,
    RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    TemplateProcessing("$A [SEP]", "[CLS] $B:1 [SEP]:1 $A", [("[CLS]", 2), ("[SEP]", 3)]),
]


@given(
    st.lists(st.tuples(pieces, pieces | st.none()), max_size=4),
    st.integers(8, 40),
    st.sampled_from(TEMPLATES),
)
def test_a_cut_is_that_of_the_library(
    texts: list[tuple[str, str | None]], max_length: int, template: Any
) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.post_processor = template
    examples = [Example(first, second, 0, row) for row, (first, second) in enumerate(texts)]
    encoded = encode(examples, tokenizer, max_length, Number(0, 1, 0.5, 0.5))
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    for row, (first, second) in enumerate(texts):
        due = tokenizer.encode(first, second)
        assert (encoded.ids[row], encoded.types[row]) == (due.ids, due.type_ids)


def test_a_pair_of_long_texts_takes_memory_by_the_sum_of_their_lengths() -> None:
    tracked = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair = [Example("a " * 30_000, "b " * 30_000, 0.0, 0)]
    encoded = encode(pair, TOKENIZER, 64, Number(0, 1, 0.5, 0.5))
    assert len(encoded.ids[0]) == 64
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - tracked
    assert more < 300_000  # kB; all pairs of the parts cut off would take 6 GB


class Echo(nn.Module):
    """Logits that say the token's number, and whether its tag is even."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        labels = dict(enumerate(names))
        self.config = type("Config", (), {"num_labels": len(labels), "id2label": labels})

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        logits = torch.stack([input_ids, -input_ids, 0 * input_ids], -1).float()
        return type("Output", (), {"logits": logits})


@given(st.lists(words, min_size=1, max_size=40))
def test_logits_are_those_of_first_tokens_word_by_word(texts: list[list[str]]) -> None:
    encoded = encode(tagged(texts), TOKENIZER, 12, TAGS)
    assert encoded.words is not None
    model: Any = Echo(TAGS.names)
    logits = predict(model, encoded, Accelerator(cpu=True))
    assert logits.shape == (sum(map(len, texts)), 3)
    for row in range(len(texts)):
        own = encoded.words.of(row)
        for place, values in zip(encoded.words.places[own], logits[own], strict=True):
            if place != LOST:
                assert values[0] == encoded.ids[row][place]


@pytest.mark.parametrize(("names", "tag"), [(("B-X", "I-X", "O"), 2), (("NOUN", "VERB", "X"), 0)])
def test_a_lost_word_is_outside_or_has_the_commonest_tag(
    tokenizer: Tokenizer, names: tuple[str, ...], tag: int
) -> None:
    encoded = encode(tagged([["a"] * 30]), tokenizer, 8, Tags(names))
    assert encoded.words is not None
    assert encoded.words.lost == 24
    model: Any = Echo(names)
    logits = predict(model, encoded, Accelerator(cpu=True))
    assert (logits[6:].argmax(1) == tag).all()
    assert np.isfinite(logits).all()
