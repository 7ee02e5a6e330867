"""What is written is what the readers and Python's own read back."""

import csv
import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.data.formats import open_table
from sqzb.data.writing import COMPRESSIONS, DELIMITERS, open_writer, output_ending
from sqzb.errors import UserError

# NUL and half characters are refused by the readers.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
SCHEMA = pa.schema({"text": pa.string(), "n": pa.float64(), "labels": pa.list_(pa.string())})
ENDINGS = [*DELIMITERS, ".jsonl", ".csv.gz", ".jsonl.bz2", ".csv.zst", ".tsv.xz", ".parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
@given(rows=st.lists(st.tuples(TEXT, st.floats(-9, 9), st.lists(TEXT, max_size=2)), min_size=1))
@settings(max_examples=scaled(6))
def test_rows_are_read_back(
    ending: str, rows: list[tuple[str, float, list[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows{ending}"
    values = [{"text": text, "n": n, "labels": labels} for text, n, labels in rows]
    with open_writer(path, ["text", "n", "labels"], SCHEMA) as writer:
        writer.write(values[:2])
        writer.write(values[2:])
    found = [dict(row.values) for row in open_table(path).rows()]
    if output_ending(path) in DELIMITERS:  # where all values are texts
        for row in found:
            row["n"], row["labels"] = float(row["n"]), json.loads(row["labels"])
    assert found == values


def test_a_csv_is_pythons(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    texts = ['a "quoted" text', "two\nlines, and a comma", "", "plain"]
    with open_writer(path, ["text", "score"]) as writer:
        writer.write([{"text": text, "score": None if text == "" else 0.5} for text in texts])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert [row["score"] for row in rows] == ["0.5", "0.5", "", "0.5"]


def test_json_has_no_nan_and_dates_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_writer(path, []) as writer:
        writer.write([{"x": float("nan"), "when": date(2020, 1, 2), "raw": b"\xff", "é": [1, {}]}])
    text = path.read_text(encoding="utf-8")
    assert text == '{"x": null, "when": "2020-01-02", "raw": "\\\\xff", "é": [1, {}]}\n'


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".csv.gz"])
def test_a_file_is_whole_or_as_it_was(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{ending}"
    path.write_text("older")
    with pytest.raises(ZeroDivisionError), open_writer(path, ["a"], pa.schema({"a": "str"})) as w:
        w.write([{"a": "1"}])
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "older"


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the endings that can be written"):
        output_ending(Path("out.xlsx"))
    with pytest.raises(UserError, match="none of the endings"):
        output_ending(Path("out.parquet.gz"))
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileExistsError, match=r"/file'"),
        open_writer(tmp_path / "file" / "out.csv", ["a"]),
    ):
        pass
    with (
        pytest.raises(UserError, match="has the column 'b', which the first row lacks"),
        open_writer(tmp_path / "out.csv", ["a"]) as writer,
    ):
        writer.write([{"a": 1, "b": 2}])


def test_the_readers_decompress_what_is_compressed() -> None:
    from sqzb.data.formats import text

    assert COMPRESSIONS == text.COMPRESSIONS
