"""Stage one: the shards of a unit, in whatever parts and however often they are begun."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.corpus import shards
from sqzb.corpus.shards import (
    check_bad,
    read_record,
    record_path,
    records_of,
    shard_name,
    shard_path,
    write_unit,
)
from sqzb.corpus.sources import Unit, documents, units
from sqzb.corpus.store import read_arrays
from sqzb.corpus.text import Cleaner
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, Source
from sqzb.tokenizer import load_tokenizer

WriteProse = Callable[[Path, int, int], list[str]]


class Case(NamedTuple):
    """A unit, with a folder that holds its vocabulary and nothing else."""

    folder: Path
    recipe: CorpusRecipe
    unit: Unit


@pytest.fixture(scope="module")
def case(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: Path, write_prose: WriteProse
) -> Case:
    folder = tmp_path_factory.mktemp("shards")
    write_prose(folder / "a.jsonl", 40, 0)
    source = Source(path=str(folder / "a.jsonl"))
    recipe = CorpusRecipe(sources={"a": source}, min_characters=200)
    shutil.copytree(vocabulary, folder / "made")
    (unit,) = units("a", source)
    return Case(folder / "made", recipe, unit)


def write(case: Case, tokens: int, characters: int) -> list[str]:
    """The names of the shards that were made, with shards and batches of so much."""
    names = []
    own: Any = shards.ShardWriter.write

    def spied(writer: Any, name: str, rows: Any) -> Any:
        names.append(name)
        return own(writer, name, rows)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards.ShardWriter, "write", spied)
        patched.setattr(shards, "SHARD_TOKENS", tokens)
        patched.setattr(shards, "BATCH_CHARACTERS", characters)
        write_unit(case.folder, case.recipe, 7, case.unit)
    return names


def files(case: Case) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (case.folder / "shards").iterdir()}


def fresh(case: Case) -> Case:
    shutil.rmtree(case.folder / "shards", ignore_errors=True)
    return case


def joined(case: Case) -> dict[str, list[int]]:
    """The arrays of all shards as if they were one."""
    found: dict[str, list[int]] = {
        name: [] for name in ("tokens", "sentences", "documents", "keys", "sizes")
    }
    for name, _ in records_of(case.folder, 7):
        arrays = read_arrays(shard_path(case.folder, name))
        start = len(found["tokens"])
        for key in found:
            moved = start if key in ("sentences", "documents") else 0
            found[key] += [int(value) + moved for value in arrays[key]]
    return found


def test_a_shard_is_its_cleaned_documents(case: Case) -> None:
    assert write(fresh(case), 10**9, 5000) == ["00007-000"]
    cleaner = Cleaner(case.recipe, case.recipe.sources["a"])
    texts = [
        text for text in documents(case.unit, case.recipe.sources["a"]) if isinstance(text, str)
    ]
    kept = [document for text in texts if (document := cleaner.document(text)) is not None]
    assert len(texts) == 40 > len(kept) > 20
    tokenizer = load_tokenizer(case.folder)
    tokens: list[int] = []
    sentences, begun = [], []
    for document in kept:
        begun.append(len(tokens))
        for sentence in document.sentences:
            sentences.append(len(tokens))
            tokens += tokenizer.encode(sentence, add_special_tokens=False).ids
    raw = ["\n".join(document.sentences).encode() for document in kept]
    keys = [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in raw]
    expected = {"tokens": tokens, "sentences": sentences, "documents": begun, "keys": keys}
    assert joined(case) == {**expected, "sizes": [len(text) for text in raw]}
    path = shard_path(case.folder, "00007-000")
    assert read_arrays(path)["tokens"].dtype == np.uint16
    characters = sum(len(s.replace(" ", "")) for document in kept for s in document.sentences)
    assert read_record(case.folder, "00007-000") == {
        "source": "a",
        "documents_end": 40,
        "last": True,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tokens": len(tokens),
        "counts": cleaner.counts,
        "seen": {"characters": characters, "unknown": 0, "outside": 0, "stripped": 0},
        "bad": {"documents": 0, "named": []},
    }


@settings(max_examples=scaled(8))
@given(st.integers(1, 6000), st.integers(1, 20_000))
def test_shards_are_the_unit_in_parts(case: Case, tokens: int, characters: int) -> None:
    write(fresh(case), 10**9, 10**6)
    ((_, whole),) = records_of(case.folder, 7)
    together = joined(case)
    names = write(fresh(case), tokens, characters)
    assert names == [shard_name(7, part) for part in range(len(names))]
    assert joined(case) == together
    records = [record for _, record in records_of(case.folder, 7) if record is not None]
    assert [record["last"] for record in records] == [False] * (len(names) - 1) + [True]
    assert all(record["tokens"] >= tokens for record in records[:-1])
    assert whole is not None and records[-1]["documents_end"] == 40
    for rule, of in whole["counts"].items():
        for what, n in of.items():
            assert sum(record["counts"].get(rule, {what: 0})[what] for record in records) == n
    ends = [0, *(record["documents_end"] for record in records)]
    read = [record["counts"]["read"]["documents"] for record in records]
    assert np.diff(ends).tolist() == read and min(read) > 0


def cut_shard(folder: Path, name: str) -> None:
    path = shard_path(folder, name)
    path.write_bytes(path.read_bytes()[:-1])


def lose_shard(folder: Path, name: str) -> None:
    shard_path(folder, name).unlink()


def lose_mark(folder: Path, name: str) -> None:
    record_path(folder, name).unlink()


def cut_mark(folder: Path, name: str) -> None:
    record_path(folder, name).write_text(record_path(folder, name).read_text()[:-3])


def foreign_mark(folder: Path, name: str) -> None:
    record_path(folder, name).write_text("{}")


@settings(max_examples=scaled(8))
@given(
    st.dictionaries(
        st.integers(0, 3),
        st.sampled_from([cut_shard, lose_shard, lose_mark, cut_mark, foreign_mark]),
        min_size=1,
    )
)
def test_what_is_not_whole_is_made_again_and_nothing_else(
    case: Case, damage: dict[int, Callable[[Path, str], None]]
) -> None:
    names = write(fresh(case), 800, 2000)
    assert len(names) >= 4
    before = files(case)
    for part, hurt in damage.items():
        hurt(case.folder, names[part])
    found = list(records_of(case.folder, 7))
    first = min(damage)
    assert [name for name, record in found if record is not None] == names[:first]
    assert found[-1] == (names[first], None)
    assert write(case, 800, 2000) == [names[part] for part in sorted(damage)]
    assert files(case) == before
    assert write(case, 800, 2000) == []


def test_without_a_shard_there_is_no_mark(case: Case) -> None:
    fresh(case)
    assert list(records_of(case.folder, 7)) == [("00007-000", None)]


def test_other_units_do_not_matter(case: Case) -> None:
    write(fresh(case), 800, 2000)
    assert list(records_of(case.folder, 6)) == [("00006-000", None)]


def test_a_unit_of_which_nothing_is_kept_has_an_empty_shard(case: Case) -> None:
    nothing = case._replace(recipe=case.recipe.model_copy(update={"min_characters": 10**6}))
    assert write(fresh(nothing), 100, 1000) == ["00007-000"]  # however long it is
    ((_, record),) = records_of(case.folder, 7)
    assert (
        record is not None
        and record["tokens"] == 0
        and record["counts"]["too short"]["documents"] == 40
    )
    assert all(len(values) == 0 for values in joined(case).values())


def test_bands_are_there_where_near_duplicates_are_looked_for(case: Case) -> None:
    pytest.importorskip("rensa")
    near = case._replace(recipe=case.recipe.model_copy(update={"near_duplicates": 0.8}))
    write(fresh(near), 10**9, 3000)
    arrays = read_arrays(shard_path(case.folder, "00007-000"))
    assert len(arrays["bands"]) == len(arrays["keys"]) > 0


# Unreadable documents


@pytest.fixture
def with_bad(case: Case, tmp_path: Path, write_prose: WriteProse) -> Case:
    """40 documents, of which 12, 25 and 38 (from 1) cannot be read."""
    write_prose(tmp_path / "bad.jsonl", 40, 0)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    for number in (12, 25, 38):
        lines[number - 1] = json.dumps({"text": number})
    (tmp_path / "bad.jsonl").write_text("\n".join(lines) + "\n")
    source = Source(path=str(tmp_path / "bad.jsonl"))
    (unit,) = units("a", source)
    return fresh(Case(case.folder, case.recipe.model_copy(update={"sources": {"a": source}}), unit))


def allowing(case: Case, n: int) -> Case:
    return case._replace(recipe=case.recipe.model_copy(update={"max_bad_documents": n}))


def test_bad_documents_are_named_in_their_shards_mark(with_bad: Case) -> None:
    write(allowing(with_bad, 3), 800, 2000)
    records = [record for _, record in records_of(with_bad.folder, 7) if record is not None]
    named = [name for record in records for name in record["bad"]["named"]]
    assert [name.partition(" ")[0].rpartition(":")[2] for name in named] == ["12", "25", "38"]
    assert sum(record["bad"]["documents"] for record in records) == 3
    assert (
        sum(record["counts"]["read"]["documents"] for record in records) == 37
        and records[-1]["documents_end"] == 40
    )


def test_one_too_many_is_an_error_and_what_was_finished_stays(with_bad: Case) -> None:
    with pytest.raises(UserError, match=r"1 document cannot be read.*allows 0:\n.*bad\.jsonl:12 "):
        write(with_bad, 600, 1500)
    found = list(records_of(with_bad.folder, 7))
    assert len(found) > 1 and found[-1][1] is None
    begun = files(with_bad)
    write(
        allowing(with_bad, 1), 600, 1500
    )  # in a shard; the sum is looked at where all records are
    assert files(with_bad).items() >= begun.items()


@pytest.mark.parametrize("n", [0, 1, 2, 5, 1234])
@pytest.mark.parametrize("allowed", [0, 1, 1233, 1234])
def test_too_many_bad_documents_are_told_by_the_first(n: int, allowed: int) -> None:
    recipe = CorpusRecipe(max_bad_documents=allowed)
    named = [f"file:{number} is bad" for number in range(min(n, 20))]
    if n <= allowed:
        check_bad(n, named, recipe)
        return
    with pytest.raises(UserError) as caught:
        check_bad(n, named, recipe)
    said = str(caught.value)
    assert said.startswith(f"{n:,} document{'' if n == 1 else 's'} cannot be read")
    assert f"allows {allowed:,}:" in said and "raise max_bad_documents" in said
    assert [name for name in named if f"\n  {name}" in said] == named[:3]
