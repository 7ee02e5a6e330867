import pytest
from tokenizers import Tokenizer

from conftest import WORDS
from sqzb.data.dataset import Example
from sqzb.finetuning import texts
from sqzb.finetuning.texts import measure_texts
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
