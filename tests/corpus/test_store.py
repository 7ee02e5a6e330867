"""The corpus on disk: arrays and chunks come back as they were written, and damage is told."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from examples import scaled
from sqzb.corpus.store import (
    CHUNKS,
    FORMAT,
    HELDOUT,
    MANIFEST,
    SHARDS,
    TRAIN,
    Chunks,
    Corpus,
    read_arrays,
    read_manifest,
    relative,
    write_arrays,
)
from sqzb.errors import UserError

arrays = st.sampled_from([np.uint16, np.uint32, np.uint64]).flatmap(
    lambda kind: arrays_of.arrays(
        kind, arrays_of.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)
    )
)
# A shard: the tokens of its sentences, and two numbers for each chunk in its table.
shard = st.tuples(
    st.lists(st.lists(st.integers(0, 2**17), min_size=1, max_size=4), max_size=8),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@settings(max_examples=scaled(10))
@given(
    st.dictionaries(
        st.sampled_from(["tokens", "keys", "bands", "train_128", "ü"]), arrays, max_size=4
    )
)
def test_arrays_come_back(folder: Path, written: dict[str, Any]) -> None:
    path = folder / "some" / "arrays.safetensors"
    write_arrays(path, written)
    found = read_arrays(path)
    assert found.keys() == written.keys()
    for name, array in written.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert (found[name] == array).all()


@settings(max_examples=scaled(7))
@given(st.lists(shard, min_size=1, max_size=4), st.sampled_from([np.uint16, np.uint32]))
@example([([], []), ([[7]], [(0, 0)]), ([], []), ([[1], [2]], [(0, 1)]), ([[3]], [])], np.uint16)
def test_chunks_are_numbered_through_the_shards(
    folder: Path,
    shards: list[tuple[list[list[int]], list[tuple[int, int]]]],
    width: type[np.uint16] | type[np.uint32],
) -> None:
    texts, tables, expected = [], [], []
    for number, (sentences, pairs) in enumerate(shards):
        tokens = [token % (np.iinfo(width).max + 1) for said in sentences for token in said]
        starts = [0, *np.cumsum([len(said) for said in sentences]).tolist()][: len(sentences)]
        bounds = [
            (a % len(tokens), a % len(tokens) + 1 + b % (len(tokens) - a % len(tokens)))
            for a, b in pairs
            if tokens
        ]
        expected += [
            (tokens[a:b], [start - a for start in starts if a < start < b]) for a, b in bounds
        ]
        texts.append(folder / SHARDS / f"{number}.safetensors")
        tables.append(folder / CHUNKS / f"{number}.safetensors")
        write_arrays(
            texts[-1], {"tokens": np.array(tokens, width), "sentences": np.array(starts, np.uint32)}
        )
        write_arrays(tables[-1], {"train_8": np.array(bounds, np.uint32).reshape(-1, 2)})
    chunks = Chunks(texts, tables, "train_8")
    assert len(chunks) == len(expected)
    for number, (ids, boundaries) in enumerate(expected):
        assert chunks[number].tokens.tolist() == ids and chunks[number].tokens.dtype == width
        assert chunks[number].boundaries.tolist() == boundaries
    with pytest.raises(IndexError):
        chunks[len(expected)]


def test_no_shards_are_no_chunks() -> None:
    assert len(Chunks([], [], "train_8")) == 0


# Damage to a file


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    path = folder / SHARDS / "whole"
    write_arrays(path, {name: np.arange(20, dtype=np.uint32) for name in ("tokens", "sentences")})
    return path.read_bytes()


def assert_told(path: Path) -> None:
    with pytest.raises(UserError) as told:
        read_arrays(path)
    assert str(path) in str(told.value) and f"--verify {path.parent.parent}" in str(told.value)


@given(st.data())
def test_a_cut_file_is_told(folder: Path, whole: bytes, data: st.DataObject) -> None:
    path = folder / SHARDS / "cut"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert_told(path)


@given(
    st.binary(max_size=200)
    | st.binary(max_size=99).map(lambda rest: len(rest).to_bytes(8, "little") + rest)
)
def test_any_other_file_is_told(folder: Path, content: bytes) -> None:
    path = folder / SHARDS / "other"
    path.write_bytes(content)
    assert_told(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["U16", "U32", "F32"]) | json_values,
        "data_offsets": st.just([0, 8]) | json_values,
        "shape": st.just([2]) | json_values,
    },
)


@given(
    json_values | st.dictionaries(st.sampled_from(["tokens", "sentences"]), entries | json_values)
)
def test_a_header_of_something_else_is_told_or_read(folder: Path, header: Any) -> None:
    raw = json.dumps(header).encode()
    path = folder / SHARDS / "header"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    try:
        read_arrays(path)
    except UserError as error:
        assert str(path) in str(error)


@given(st.data())
def test_a_damaged_header_is_told_or_read(folder: Path, whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 2 * 80 - 1))] = data.draw(st.integers(0, 255))
    path = folder / SHARDS / "damaged"
    path.write_bytes(bytes(damaged))
    try:
        read_arrays(path)
    except UserError as error:
        assert str(path) in str(error)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    assert_told(tmp_path / SHARDS / "absent")
    assert_told(tmp_path)


def test_an_absent_table_is_told(folder: Path, whole: bytes) -> None:
    path = folder / SHARDS / "whole"
    with pytest.raises(UserError, match=f"{path} has no train_8"):
        Chunks([path], [path], "train_8")


# The folder


@pytest.fixture
def finished(tmp_path: Path) -> Corpus:
    """A corpus of two shards, as far as the store looks at it."""
    files: dict[str, dict[str, int]] = {}
    for number in range(2):
        text, table = (tmp_path / kind / f"{number}.safetensors" for kind in (SHARDS, CHUNKS))
        write_arrays(
            text,
            {
                "tokens": np.arange(20, dtype=np.uint16),
                "sentences": np.arange(0, 20, 3, dtype=np.uint32),
            },
        )
        bounds = np.array([(0, 5), (5, 13)], np.uint32)
        write_arrays(
            table,
            {
                "train_16": bounds,
                "heldout_16": bounds[:0],
                "train_32": bounds[:1],
                "heldout_32": bounds,
            },
        )
        files |= {relative(path): {"bytes": path.stat().st_size} for path in (table, text)}
    manifest = {"format": FORMAT, "sequence_lengths": [16, 32], "files": files}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return Corpus(tmp_path)


def test_each_split_and_length_has_its_chunks(finished: Corpus) -> None:
    sizes = {
        (split, n): len(finished.split(split, n)) for split in (TRAIN, HELDOUT) for n in (16, 32)
    }
    assert sizes == {(TRAIN, 16): 4, (HELDOUT, 16): 0, (TRAIN, 32): 2, (HELDOUT, 32): 4}
    assert finished.split(TRAIN, 16)[3].tokens.tolist() == list(range(5, 13))


def test_only_the_lengths_that_were_cut(finished: Corpus) -> None:
    with pytest.raises(UserError, match="length 24, only to 16, 32"):
        finished.split(TRAIN, 24)


@pytest.mark.parametrize("kind", [SHARDS, CHUNKS])
@pytest.mark.parametrize("damage", ["shorter", "longer", "missing"])
def test_a_file_of_another_size_is_told(finished: Corpus, kind: str, damage: str) -> None:
    path = finished.folder / kind / "1.safetensors"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "shorter" else content + b"0")
    size = path.stat().st_size if path.exists() else 0
    with pytest.raises(
        UserError, match=f"{path} has {size:,} bytes and should have {len(content):,}.*--verify"
    ):
        finished.split(TRAIN, 16)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors cannot be counted")
def test_an_open_corpus_holds_no_file_descriptor(finished: Corpus) -> None:
    before = len(os.listdir("/dev/fd"))
    opened = [finished.split(split, n) for split in (TRAIN, HELDOUT) for n in (16, 32)]
    assert len(os.listdir("/dev/fd")) == before
    assert opened[0][0].tokens.tolist() == list(range(5))


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(UserError, match="sqzb prepare-corpus"):
            Corpus(path)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"no"])
def test_a_manifest_that_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / MANIFEST} is damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "2", "null", json.dumps({"format": FORMAT - 1})])
def test_a_manifest_of_another_format_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=f"{tmp_path} was prepared by another version"):
        read_manifest(tmp_path)
