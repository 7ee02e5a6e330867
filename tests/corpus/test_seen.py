"""Counts of text that a model does not see, against counts character by character."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from examples import scaled
from sqzb.corpus import seen
from sqzb.corpus.build import build
from sqzb.corpus.encode import Encoder
from sqzb.corpus.manifest import report
from sqzb.corpus.seen import COUNTED, SeenCounter
from sqzb.recipe import CorpusRecipe, Source, Vocabulary
from sqzb.tokenizer import load_tokenizer, train_tokenizer

TEXTS = ["the café is open", "हिन्दी भाषा", "が くる", "中文 words", "Zürich"]
TOKENIZERS = {
    "stripping": train_tokenizer(TEXTS * 3, 200, lowercase=True),
    "keeping": train_tokenizer(TEXTS * 3, 200, lowercase=True, strip_accents=False),
    "cased": train_tokenizer(TEXTS * 3, 200, lowercase=False),
}
words = st.sampled_from(
    [*" ".join(TEXTS).split(), "ꙮ", "xꙮy", "ab,ꙮ", "e\u0301", "[UNK]", "q" * 101]
)
sentences = st.lists(st.lists(words, min_size=1, max_size=6).map(" ".join), max_size=6)


def by_hand(tokenizer: Tokenizer, given: list[str]) -> dict[str, int]:
    """The counts by their definitions, a character at a time."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    alphabet = {token.removeprefix("##") for token in tokenizer.get_vocab()}
    strips = tokenizer.normalizer.strip_accents
    strips = tokenizer.normalizer.lowercase if strips is None else strips
    counts = dict.fromkeys(COUNTED, 0)
    for sentence in given:
        encoding = tokenizer.encode(sentence, add_special_tokens=False)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            counts["unknown"] += end - start if token == "[UNK]" else 0
        for character in sentence.replace(" ", ""):
            counts["characters"] += 1
            if character.isascii():
                continue
            normalized = tokenizer.normalizer.normalize_str(character).strip()
            counts["outside"] += not set(normalized) <= alphabet
            parts = unicodedata.normalize("NFD", character)
            counts["stripped"] += strips and any(map(unicodedata.combining, parts))
    return counts


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=scaled(20))
@given(batches=st.lists(sentences, min_size=1, max_size=3))
def test_counts_are_those_of_each_character(name: str, batches: list[list[str]]) -> None:
    tokenizer = TOKENIZERS[name]
    counter, encoder = SeenCounter(tokenizer), Encoder(tokenizer)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(seen, "MAX_WORDS", 5)
        for batch in batches:
            counter.add(batch, *encoder.encode(batch))
    assert counter.counts == by_hand(tokenizer, [one for batch in batches for one in batch])


@given(character=st.characters(exclude_categories=["Cs", "Cc"]))
def test_what_is_stripped_is_what_the_library_removes(character: str) -> None:
    cased = TOKENIZERS["cased"].normalizer
    cased.strip_accents = True
    stripped = cased.normalize_str(character).strip()
    cased.strip_accents = False
    whole = unicodedata.normalize("NFD", cased.normalize_str(character).strip())
    if seen.has_mark(character):
        assert stripped != whole or not whole
    else:
        assert stripped == whole


def made(folder: Path, text: str, **vocabulary: Any) -> dict[str, Any]:
    lines = [json.dumps({"text": f"{text} {n}."}) for n in range(30)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    recipe = CorpusRecipe(
        output=str(folder / "made"),
        sources={"one": Source(path=str(folder / "text.jsonl"))},
        vocabulary=Vocabulary(**vocabulary),
        sequence_lengths=[16],
        min_characters=1,
        heldout=0.1,
    )
    corpus = build(recipe, workers=1)
    report(corpus)
    return corpus.manifest


def test_unknown_text_is_in_table_and_manifest_and_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    tokens = TOKENIZERS["cased"].get_vocab()
    vocabulary.write_text("\n".join(sorted(tokens, key=tokens.__getitem__)))
    manifest = made(tmp_path, "Мама мыла раму", path=str(vocabulary))
    counts = manifest["seen"]
    assert counts["outside"] == 30 * 12  # the letters
    assert counts["unknown"] == counts["characters"] == 440  # numbers and full stops too
    assert counts["tokens"] == sum(manifest["tokens"].values())
    assert counts["unknown_tokens"] == 30 * 5 and manifest["vocab_asked"] is None
    printed = capsys.readouterr()
    assert f"{counts['unknown'] / counts['characters']:.2%}" in printed.out
    assert printed.err.count("warning") == 1 and "leave vocabulary.path out" in printed.err

    # The manifest of an older version says nothing, and is still printed.
    older = {key: value for key, value in manifest.items() if key not in ("seen", "vocab_asked")}
    assert seen.rows(older) == []
    seen.warn(older)
    assert not capsys.readouterr().err
    assert seen.total([{}], np.zeros((2, 6), np.int64), 0) is None


@pytest.mark.parametrize("strip", [None, True, False])
def test_stripped_marks_are_warned_of_with_the_key(
    strip: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = made(tmp_path, "हिन्दी भाषा में लिखा", size=100, strip_accents=strip)
    told = capsys.readouterr().err
    assert ("vocabulary.strip_accents=false" in told) == (strip is not False)
    assert (manifest["seen"]["stripped"] > 0) == (strip is not False)
    vocabulary = load_tokenizer(tmp_path / "made").get_vocab()
    has_virama = any("\u094d" in token for token in vocabulary)
    assert has_virama == (strip is False)


def test_a_vocabulary_that_came_out_smaller_or_larger_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = made(tmp_path, "one two three", size=5000)
    assert manifest["vocab_asked"] == 5000 > manifest["vocab_size"]
    assert "asked for 5,000" in capsys.readouterr().err


def test_ordinary_text_has_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Any
) -> None:
    capsys.readouterr()
    report(corpus)
    assert not capsys.readouterr().err
