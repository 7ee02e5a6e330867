"""Stage two: repeated documents are dropped, and tables hold chunks as often as weights say."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from examples import scaled
from sqzb.corpus import tables
from sqzb.corpus.chunks import cut_all
from sqzb.corpus.shards import shard_path
from sqzb.corpus.store import HELDOUT, SPLITS, TRAIN, read_arrays, write_arrays
from sqzb.corpus.tables import DUPLICATE, NEAR_DUPLICATE, find_repeated, table_path, write_table
from sqzb.corpus.text import copies
from sqzb.draws import hash64
from sqzb.files import sha256
from sqzb.recipe import CorpusRecipe

VOCABULARY = 50


class Doc(NamedTuple):
    key: int
    sentences: Sequence[Sequence[int]] = ()
    size: int = 1
    bands: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        return [token for sentence in self.sentences for token in sentence]


def starts(sizes: list[int]) -> NDArray[np.uint32]:
    return np.array([0, *np.cumsum(sizes)], np.int64)[: len(sizes)].astype(np.uint32)


def write_shard(folder: Path, name: str, documents: Sequence[Doc], bands: int = 0) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "tokens": np.array(
            [token for document in documents for token in document.tokens], np.uint16
        ),
        "sentences": starts(
            [len(sentence) for document in documents for sentence in document.sentences]
        ),
        "documents": starts([len(document.tokens) for document in documents]),
        "keys": np.array([document.key for document in documents], np.uint64),
        "sizes": np.array([document.size for document in documents], np.uint32),
    }
    if bands:
        arrays["bands"] = np.array([document.bands for document in documents], np.uint64).reshape(
            -1, bands
        )
    write_arrays(shard_path(folder, name), arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


# What stands twice

few = st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1])
repetitive = st.builds(Doc, few, st.just(()), st.integers(1, 99), st.tuples(few, few))


@settings(max_examples=scaled(10))
@given(
    st.lists(st.lists(repetitive, max_size=6), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, 0.8]),
    st.sampled_from([1, 3, tables.KEYS_AT_ONCE]),
)
def test_documents_whose_key_or_band_stood_earlier_are_found(
    folder: Path, shards: list[list[Doc]], equal: bool, near: float | None, at_once: int
) -> None:
    names = [f"{number:05d}-000" for number in range(len(shards))]
    for name, documents in zip(names, shards, strict=True):
        write_shard(folder, name, documents, 0 if near is None else 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "KEYS_AT_ONCE", at_once)
        found = find_repeated(
            folder, names, CorpusRecipe(drop_duplicates=equal, near_duplicates=near)
        )
    assert list(found) == [DUPLICATE] * equal + [NEAR_DUPLICATE] * (near is not None)

    seen: set[int] = set()
    seen_bands: set[tuple[int, int]] = set()
    for name, documents in zip(names, shards, strict=True):
        due: dict[str, list[bool]] = {DUPLICATE: [], NEAR_DUPLICATE: []}
        for document in documents:
            again = document.key in seen
            alike = not seen_bands.isdisjoint(enumerate(document.bands))
            due[DUPLICATE].append(again)
            due[NEAR_DUPLICATE].append(alike and not (equal and again))
            seen.add(document.key)
            seen_bands |= set(enumerate(document.bands))
        for rule, by_shard in found.items():
            gone = by_shard[name]
            assert gone.flags.tolist() == due[rule]
            sizes = [
                document.size for document, flag in zip(documents, due[rule], strict=True) if flag
            ]
            assert (gone.documents, gone.bytes) == (len(sizes), sum(sizes))


# Tables

documents = st.builds(
    Doc,
    st.integers(0, 2**64 - 1),
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20), max_size=6),
    st.just(1),
    st.just(()),
)


@settings(max_examples=scaled(10))
@given(
    st.lists(st.tuples(documents, st.booleans(), st.booleans()), max_size=10),
    st.sampled_from([0.0, 0.3, 0.99]),
    st.sampled_from([0.4, 1.0, 2.0, 3.7]),
)
def test_a_table_holds_the_chunks_of_the_documents_taken(
    folder: Path, drawn: list[tuple[Doc, bool, bool]], heldout: float, weight: float
) -> None:
    name = "00007-001"
    docs = [document for document, _, _ in drawn]
    write_shard(folder, name, docs)
    recipe = CorpusRecipe(sequence_lengths=[8, 16], heldout=heldout, short_seq_prob=0.2, seed=5)
    flags = [np.array([which[rule] for which in drawn], bool) for rule in (1, 2)]
    made = write_table(folder, recipe, name, weight, VOCABULARY, flags)

    times: dict[str, list[int]] = {TRAIN: [], HELDOUT: []}
    for document, *dropped in drawn:
        apart = document.key / 2**64 < heldout
        in_training = 0 if apart else int(copies(weight, recipe.seed, np.uint64(document.key)))
        times[TRAIN].append(0 if any(dropped) else in_training)
        times[HELDOUT].append(int(apart and not any(dropped)))

    path = table_path(folder, name)
    arrays, shard = read_arrays(path), read_arrays(shard_path(folder, name))
    assert set(arrays) == {f"{split}_{length}" for split in SPLITS for length in (8, 16)}
    tokens = shard["tokens"]
    keys = np.array([document.key for document in docs], np.uint64)
    for row, split in enumerate(SPLITS):
        counts: Counter[int] = Counter()
        for document, n in zip(docs, times[split], strict=True):
            counts.update(document.tokens * n)
        assert made.documents[split] == sum(times[split])
        assert made.frequencies[row].tolist() == [counts[token] for token in range(VOCABULARY)]
        for length in (8, 16):
            chunks = cut_all(
                shard["sentences"], shard["documents"], keys, len(tokens), length, 0.2, recipe.seed
            )
            of = zip(chunks.bounds.tolist(), chunks.documents.tolist(), strict=True)
            table = arrays[f"{split}_{length}"]
            assert table.tolist() == [
                bounds for bounds, number in of for _ in range(times[split][number])
            ]
            assert table.dtype == np.uint32 and table.shape == (made.chunks[length][split], 2)
            assert made.chunk_tokens[length][split] == counts.total()
            assert (
                Counter(token for a, b in table.tolist() for token in tokens[a:b].tolist())
                == counts
            )
    assert (made.bytes, made.sha256) == (path.stat().st_size, sha256(path))


def many(folder: Path, n: int) -> NDArray[np.uint64]:
    """A shard of so many documents; their keys."""
    keys = hash64(np.arange(n))
    write_shard(folder, "many", [Doc(int(key), [[1, 2]]) for key in keys])
    return keys


@pytest.mark.parametrize("share", [0.0, 0.005, 0.2])
def test_a_share_of_the_documents_is_held_out(tmp_path: Path, share: float) -> None:
    many(tmp_path, 4000)
    made = write_table(tmp_path, CorpusRecipe(heldout=share), "many", 1.0, VOCABULARY, [])
    assert made.documents[TRAIN] + made.documents[HELDOUT] == 4000
    assert stats.binomtest(made.documents[HELDOUT], 4000, share).pvalue > 1e-4


def test_a_document_is_in_the_same_split_for_every_seed_and_weight(tmp_path: Path) -> None:
    keys = many(tmp_path, 1000)
    heldout = [
        write_table(
            tmp_path, CorpusRecipe(heldout=0.2, seed=seed), "many", weight, VOCABULARY, []
        ).documents[HELDOUT]
        for seed, weight in ((0, 1.0), (1, 2.5))
    ]
    assert heldout == [(keys < 2**64 * 0.2).sum()] * 2


def test_training_takes_documents_as_often_as_their_weight_says(tmp_path: Path) -> None:
    keys = many(tmp_path, 2000)
    made = write_table(tmp_path, CorpusRecipe(heldout=0.1), "many", 2.5, VOCABULARY, [])
    further = made.documents[TRAIN] - 2 * (2000 - made.documents[HELDOUT])
    assert stats.binomtest(further, 2000 - made.documents[HELDOUT], 0.5).pvalue > 1e-4
    repeated = np.ones(len(keys), bool)
    assert (
        write_table(tmp_path, CorpusRecipe(), "many", 2.5, VOCABULARY, [repeated]).frequencies.sum()
        == 0
    )


def test_what_stage_one_sampled_stands_once(tmp_path: Path) -> None:
    sampled = [key for key in hash64(np.arange(1000)) if copies(0.3, 0, key)]
    write_shard(tmp_path, "sampled", [Doc(int(key), [[1]]) for key in sampled])
    made = write_table(tmp_path, CorpusRecipe(heldout=0.1), "sampled", 0.3, VOCABULARY, [])
    assert sum(made.documents.values()) == len(sampled)


@pytest.mark.parametrize("docs", [[], [Doc(1)], [Doc(1), Doc(2**64 - 1)]])
def test_a_shard_without_tokens_has_empty_tables(tmp_path: Path, docs: list[Doc]) -> None:
    write_shard(tmp_path, "empty", docs)
    made = write_table(tmp_path, CorpusRecipe(), "empty", 1.0, VOCABULARY, [])
    assert made.chunks == made.chunk_tokens == {n: {TRAIN: 0, HELDOUT: 0} for n in (128, 512)}
    assert made.frequencies.shape == (2, VOCABULARY) and not made.frequencies.any()
    assert read_arrays(table_path(tmp_path, "empty"))["train_128"].shape == (0, 2)
