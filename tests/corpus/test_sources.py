"""Sources: every kind gives its documents in order, and what cannot be read is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.corpus.sources import PYTHON_DOCS, documents, units
from sqzb.errors import UserError
from sqzb.recipe import Source

TEXTS = [f"Document {number}.\nIts é second line." for number in range(10)]


def read(source: Source) -> list[str]:
    return [text for unit in units("s", source) for text in documents(unit, source)]


def refusal(source: Source) -> str:
    with pytest.raises(UserError) as caught:
        read(source)
    return str(caught.value)


def jsonl(path: Path, texts: list[str] = TEXTS, column: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts), encoding="utf-8")
    return path


def parquet(path: Path, values: Any = TEXTS, column: str = "text", **options: Any) -> Path:
    pq.write_table(pa.table({"id": list(range(len(values))), column: values}), path, **options)
    return path


@pytest.mark.parametrize("column", ["text", "body"])
def test_jsonl_and_parquet_rows_are_documents(tmp_path: Path, column: str) -> None:
    for path in (jsonl(tmp_path / "a.jsonl", column=column), parquet(tmp_path / "a.parquet", column=column)):
        assert read(Source(path=str(path), text=column)) == TEXTS


def test_jsonl_skips_blank_lines_and_takes_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\ufeff{"text": "one"}\r\n\n  \n{"text": "two\u2028"}', encoding="utf-8")
    assert read(Source(path=str(tmp_path / "a.jsonl"))) == ["one", "two\u2028"]


def test_half_a_character_in_jsonl_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "cut \ud83d here, whole \ud83d\ude00"}')
    assert read(Source(path=str(tmp_path / "a.jsonl"))) == ["cut \ufffd here, whole \U0001f600"]


def test_parquet_row_groups_are_units_and_null_is_no_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [*TEXTS, None], row_group_size=4)
    assert [unit.part for unit in units("s", Source(path=str(path)))] == [0, 1, 2]
    assert read(Source(path=str(path))) == [*TEXTS, ""]


def test_parquet_takes_large_strings(tmp_path: Path) -> None:
    assert read(Source(path=str(parquet(tmp_path / "a.parquet", pa.array(TEXTS, pa.large_string()))))) == TEXTS


def test_a_txt_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    (tmp_path / "b.txt").write_text("Three.")
    assert read(Source(path=str(tmp_path))) == ["One.\n\nTwo.\n", "Three."]


@given(st.lists(st.lists(st.text("ab. ", min_size=1).filter(str.strip), min_size=1), max_size=6), st.integers(0, 3))
def test_blank_lines_part_documents(blocks: list[list[str]], after: int) -> None:
    text = "\n \n\n".join("\n".join(block) for block in blocks) + "\n" * after
    with_text = Path(f"{test_blank_lines_part_documents.folder}/a.txt")  # type: ignore[attr-defined]
    with_text.write_text("\n" + text)
    found = read(Source(path=str(with_text), txt_documents="blank-lines"))
    assert [document.rstrip("\n").split("\n") for document in found] == blocks


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    test_blank_lines_part_documents.folder = tmp_path_factory.mktemp("blank")  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_sentences_are_gathered_to_documents(tmp_path: Path, suffix: str) -> None:
    rows = [f"Sentence {number}." for number in range(7)]
    path = tmp_path / f"a.{suffix}"
    {
        "txt": lambda: path.write_text("\n\n".join(rows) + "\n"),
        "jsonl": lambda: jsonl(path, rows),
        "parquet": lambda: parquet(path, rows),
    }[suffix]()
    found = read(Source(path=str(path), sentences_per_document=3))
    assert [[line for line in document.split("\n") if line] for document in found] == [rows[:3], rows[3:6], rows[6:]]


def test_folders_and_globs_stand_for_every_file_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = [tmp_path / "b.txt", tmp_path / "deep" / "a.txt", tmp_path / "deep" / "er" / "c.txt"]
    for file in files:
        file.write_text(file.stem)
    (tmp_path / "deep" / "notes.md").write_text("not text")
    for path, stems in [
        (tmp_path, ["b", "a", "c"]),
        (tmp_path / "**", None),
        (tmp_path / "**" / "*.txt", ["b", "a", "c"]),
        (tmp_path / "*.txt", ["b"]),
        (tmp_path / "de*", ["a", "c"]),
        (tmp_path / "deep" / "[ac].txt", ["a"]),
    ]:
        if stems is None:  # a glob for everything names the notes too, and they cannot be read
            assert "notes.md" in refusal(Source(path=str(path)))
            (tmp_path / "deep" / "notes.md").unlink()
            stems = ["b", "a", "c"]
        assert read(Source(path=str(path))) == stems


def test_python_docs_are_running_prose() -> None:
    texts = [text for text in read(Source(path=PYTHON_DOCS)) if text]
    assert len(texts) > 30 and sum(map(len, texts)) > 100_000
    assert all(paragraph[0].isupper() and paragraph[-1] in ".:" for text in texts for paragraph in text.split("\n\n"))


@pytest.mark.parametrize("path", ["absent.txt", "absent/*.jsonl", "one/two/three", "C:\\text"])
def test_a_missing_path_is_named(path: str) -> None:
    assert path in refusal(Source(path=path)) and "Source s" in refusal(Source(path=path))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for path in (tmp_path / name, tmp_path):
        assert f"{tmp_path / name} is empty" in refusal(Source(path=str(path)))


def test_a_folder_without_text_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    assert str(tmp_path) in refusal(Source(path=str(tmp_path)))
    assert "a.pdf is of no kind" in refusal(Source(path=str(tmp_path / "a.pdf")))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_text_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "fine"}\n' + '{"text": "caf\u00e9"}\n'.encode("latin1"))
    message = refusal(Source(path=str(tmp_path / name)))
    assert f"{tmp_path / name}:2 is not UTF-8" in message and "0xe9" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_missing_column_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    (jsonl if name.endswith("jsonl") else parquet)(tmp_path / name)
    message = refusal(Source(path=str(tmp_path / name), text="body"))
    assert name in message and "no column body; it has id, text" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_column_that_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    (jsonl if name.endswith("jsonl") else parquet)(tmp_path / name)
    message = refusal(Source(path=str(tmp_path / name), text="id"))
    assert name in message and "id holds" in message and "not text" in message


@pytest.mark.parametrize("line", ["{", "[1, 2]", '"text"', "null", '{"text": null}', '{"text": ["a"]}', "[" * 10**5])
def test_a_bad_json_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", TEXTS[:3])
    path.write_text(path.read_text() + "\n" + line + "\n")
    assert f"{path}:5" in refusal(Source(path=str(path)))


@pytest.mark.parametrize("damage", ["cut", "text", "middle"])
def test_broken_parquet_is_named(tmp_path: Path, damage: str) -> None:
    path = parquet(tmp_path / "a.parquet", [f"{text} {n}" for n, text in enumerate(TEXTS * 50)])
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-20], "text": b"text", "middle": whole[:4] + bytes(5000) + whole[5004:]}[damage])
    assert f"{path}" in refusal(Source(path=str(path))) and "cannot be read" in refusal(Source(path=str(path)))


def hub(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[Any]], shards: int = 3) -> list[tuple[Any, Any]]:
    """Put a data set behind load_dataset; what it is called with."""
    calls: list[tuple[Any, Any]] = []

    def load(*args: Any, **options: Any) -> datasets.IterableDataset:
        calls.append((args, options))
        return datasets.Dataset.from_dict(rows).to_iterable_dataset(num_shards=shards)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_a_hub_source_is_streamed_shard_by_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, {"body": [*TEXTS, None]})
    source = Source(path="owner/name", text="body", config="20231101.en", revision="abc", split="test")
    assert [unit.part for unit in units("s", source)] == [0, 1, 2]
    assert read(source) == [*TEXTS, ""]
    options = {"split": "test", "revision": "abc", "streaming": True}
    assert all(call == (("owner/name", "20231101.en"), options) for call in calls)


def test_a_hub_source_gathers_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"text": ["A.", "B.", "C."]}, shards=1)
    assert read(Source(path="owner/name", sentences_per_document=2)) == ["A.\n\nB.", "C."]


def test_a_local_path_goes_before_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not hub(monkeypatch, {"text": ["hub"]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name.txt").write_text("local")
    assert read(Source(path="owner/name.txt")) == ["local"]


def test_a_hub_column_that_is_missing_or_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"id": [1, 2, 3], "body": ["a", "b", "c"]})
    assert "no column text; it has id, body" in refusal(Source(path="owner/name"))
    assert "owner/name: id holds 1, not text" in refusal(Source(path="owner/name", text="id"))


def test_a_hub_data_set_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "no route to host" in message


def test_a_hub_data_set_that_breaks_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(rows))
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "reset by peer" in message
    assert "no column body; it has text" in refusal(Source(path="owner/name", text="body"))
