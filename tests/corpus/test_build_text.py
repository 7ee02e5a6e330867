"""prepare-corpus: the corpus is true to the text."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builds import as_text, at, cleaned, split_tokens, texts_of, tokens_of
from sqzb.corpus.build import build
from sqzb.corpus.store import HELDOUT, SPLITS, TRAIN, Corpus
from sqzb.recipe import CorpusRecipe, Source, Vocabulary

WriteProse = Callable[[Path, int, int], list[str]]
Content = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("small_units")


@pytest.mark.parametrize("length", [16, 32])
@pytest.mark.parametrize("split", SPLITS)
def test_chunks_are_the_text(
    corpus: Corpus, corpus_recipe: CorpusRecipe, length: int, split: str
) -> None:
    def squeezed(text: str) -> str:
        return "".join(text.split()).lower()

    source = "\n".join(squeezed(text) for text in texts_of(corpus_recipe))
    chunks = corpus.split(split, length)
    for number in range(len(chunks)):
        tokens, boundaries = chunks[number]
        assert 0 < len(tokens) <= length - 3
        said = squeezed(corpus.tokenizer.decode(tokens.tolist()))
        assert (
            said.removeprefix("##") in source
        )  # a sentence too long for a chunk may be cut in a word
        for boundary in boundaries:
            assert corpus.tokenizer.decode(tokens[boundary - 1 : boundary].tolist()) == "."
    together = np.concatenate([chunks[number].tokens for number in range(len(chunks))])
    assert together.tolist() == split_tokens(corpus, split)


def test_every_document_is_whole_in_one_split(corpus: Corpus, corpus_recipe: CorpusRecipe) -> None:
    splits = {split: as_text(split_tokens(corpus, split)) for split in SPLITS}
    kept = {document.key: document for document in cleaned(corpus_recipe)}
    assert len(kept) < len(cleaned(corpus_recipe))  # some stand in two files
    heldout = 0
    for document in kept.values():
        found = [split for split in SPLITS if as_text(tokens_of(corpus, document)) in splits[split]]
        assert len(found) == 1
        heldout += found == [HELDOUT]
    assert abs(heldout - 0.2 * len(kept)) < 4 * (0.16 * len(kept)) ** 0.5
    assert corpus.manifest["documents"] == {TRAIN: len(kept) - heldout, HELDOUT: heldout}
    assert sum(len(split_tokens(corpus, s)) for s in SPLITS) == sum(
        len(tokens_of(corpus, d)) for d in kept.values()
    )


def test_of_equal_documents_one_is_taken(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    times = Counter(document.key for document in cleaned(corpus_recipe))
    sizes = {document.key: document.size for document in cleaned(corpus_recipe)}
    again = {key: n - 1 for key, n in times.items() if n > 1}
    assert corpus.manifest["counts"]["duplicates"] == {
        "documents": sum(again.values()),
        "bytes": sum(n * sizes[key] for key, n in again.items()),
    }
    assert corpus.manifest["counts"]["kept"]["documents"] == len(times)
    everything = build(at(corpus_recipe, tmp_path / "all", drop_duplicates=False), workers=1)
    assert "duplicates" not in everything.manifest["counts"]
    assert sum(everything.manifest["documents"].values()) == times.total()


def test_a_weight_repeats_what_is_trained_on(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    def weighted(weight: float) -> Corpus:
        given = {
            name: s.model_copy(update={"weight": weight})
            for name, s in corpus_recipe.sources.items()
        }
        return build(at(corpus_recipe, tmp_path / f"{weight}", sources=given), workers=1)

    def chunks(made: Corpus, split: str) -> list[list[int]]:
        found = made.split(split, 32)
        return [found[number].tokens.tolist() for number in range(len(found))]

    thrice = weighted(3.0)
    assert chunks(thrice, TRAIN) == [chunk for chunk in chunks(corpus, TRAIN) for _ in range(3)]
    assert chunks(thrice, HELDOUT) == chunks(corpus, HELDOUT)
    assert thrice.manifest["documents"][TRAIN] == 3 * corpus.manifest["documents"][TRAIN]
    half = weighted(0.5).manifest["counts"]
    n = corpus.manifest["counts"]["kept"]["documents"]
    assert abs(half["kept"]["documents"] - n / 2) < 4 * (n / 4) ** 0.5
    assert half["kept"]["documents"] + half["duplicates"]["documents"] + half["not sampled"][
        "documents"
    ] == len(cleaned(corpus_recipe))


def test_the_seed_decides_the_cuts_alone(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path, content: Content
) -> None:
    other = build(at(corpus_recipe, tmp_path / "seed", seed=1), workers=1)
    one, two = content(corpus.folder), content(other.folder)
    differ = {
        name.partition("/")[0] for name in one.keys() | two.keys() if one.get(name) != two.get(name)
    }
    assert differ == {"chunks", "manifest.json"}


def test_a_second_corpus_in_the_same_place_has_its_own_vocabulary(
    corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    for size in (100, 120):
        corpus = build(
            at(corpus_recipe, tmp_path / "again", vocabulary=Vocabulary(size=size)), workers=1
        )
        assert corpus.manifest["vocab_size"] == size
        splits = [as_text(split_tokens(corpus, split)) for split in SPLITS]
        assert any(
            as_text(tokens_of(corpus, cleaned(corpus_recipe)[0])) in tokens for tokens in splits
        )
        shutil.rmtree(corpus.folder)


def test_wide_vocabularies_are_kept_whole(
    tmp_path: Path, write_prose: WriteProse, corpus_recipe: CorpusRecipe
) -> None:
    write_prose(tmp_path / "a.jsonl", 30, 0)
    words = sorted(
        {
            word
            for text in texts_of(corpus_recipe)
            for word in text.replace(".", " ").lower().split()
        }
    )
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"unused{n}" for n in range(2**16)),
        ".",
        *words,
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    recipe = at(
        corpus_recipe,
        tmp_path / "out",
        sources={"a": Source(path=str(tmp_path / "a.jsonl"))},
        vocabulary=Vocabulary(path=str(tmp_path / "vocab.txt")),
    )
    corpus = build(recipe, workers=1)
    assert min(split_tokens(corpus, TRAIN)) >= 2**16
    assert corpus.manifest["special_ids"] == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert json.dumps(corpus.manifest)
