"""The corpus on disk: chunks come back as they were written, and damage is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqzb.corpus.store import HELDOUT, MANIFEST, TRAIN, Chunks, Corpus, read_shard, write_shard
from sqzb.errors import UserError

# A shard: its sentences, and after which of them a chunk ends.
shards = st.lists(
    st.lists(st.tuples(st.lists(st.integers(0, 2**17), min_size=1, max_size=4), st.booleans()), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@settings(max_examples=25)
@given(shards, st.sampled_from([np.uint16, np.uint32]))
def test_chunks_are_numbered_through_the_shards(
    folder: Path, shards: list[list[tuple[list[int], bool]]], width: type[np.uint16] | type[np.uint32]
) -> None:
    written, expected = [], []
    for number, sentences in enumerate(shards):
        tokens: list[int] = []
        starts, chunk_starts = [], [0]
        begun: tuple[list[int], list[int]] = ([], [])
        for index, (ids, ends) in enumerate(sentences):
            ids = [token % (np.iinfo(width).max + 1) for token in ids]
            starts.append(len(tokens))
            if begun[0]:
                begun[1].append(len(begun[0]))
            begun[0].extend(ids)
            tokens += ids
            if ends or index == len(sentences) - 1:
                chunk_starts.append(len(tokens))
                expected.append(begun)
                begun = ([], [])
        path = folder / f"{number}.safetensors"
        arrays = {"sentences": np.array(starts, np.uint32), "chunks_8": np.array(chunk_starts, np.uint32)}
        write_shard(path, {"tokens": np.array(tokens, width), **arrays})
        written.append(path)
    chunks = Chunks(written, 8)
    assert len(chunks) == len(expected)
    for number, (ids, boundaries) in enumerate(expected):
        assert chunks[number].tokens.tolist() == ids and chunks[number].tokens.dtype == width
        assert chunks[number].boundaries.tolist() == boundaries


def test_a_sentence_that_goes_on_in_the_next_chunk_has_no_boundary_there(tmp_path: Path) -> None:
    arrays = {"sentences": np.array([0, 9], np.uint32), "chunks_8": np.array([0, 5, 12], np.uint32)}
    write_shard(tmp_path / "a", {"tokens": np.arange(12, dtype=np.uint16), **arrays})
    chunks = Chunks([tmp_path / "a"], 8)
    assert [chunks[n].boundaries.tolist() for n in range(2)] == [[], [4]]


def test_no_shards_are_no_chunks() -> None:
    assert len(Chunks([], 8)) == 0


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    counting = {name: np.arange(20, dtype=np.uint32) for name in ("tokens", "sentences", "chunks_8")}
    write_shard(folder / "whole", counting)
    return (folder / "whole").read_bytes()


@given(st.data())
def test_a_cut_shard_is_told(folder: Path, whole: bytes, data: st.DataObject) -> None:
    path = folder / "cut"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=str(path)):
        Chunks([path], 8)


@given(st.data())
def test_a_shard_with_a_damaged_header_is_told_or_read(folder: Path, whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 3 * 80 - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged"
    path.write_bytes(bytes(damaged))
    try:
        Chunks([path], 8)
    except UserError as error:
        assert str(path) in str(error)


def test_an_absent_shard_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read_shard(tmp_path / "absent")


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(UserError, match="sqzb prepare-corpus"):
            Corpus(path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Corpus(tmp_path)


def test_only_the_lengths_that_were_cut(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="length 24, only to 16, 32"):
        corpus.split(TRAIN, 24)
    for length in (16, 32):
        for split in (TRAIN, HELDOUT):
            assert len(corpus.split(split, length)) == corpus.manifest["lengths"][str(length)]["chunks"][split] > 0


def test_the_manifest_is_plain_json(corpus: Corpus) -> None:
    assert json.loads((corpus.folder / MANIFEST).read_text()) == corpus.manifest
