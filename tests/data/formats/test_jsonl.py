"""JSON lines and arrays: the objects of Python's writer, and errors with their line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.formats import open_table, text
from table_files import refusal, rows, values, written

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "é"]), VALUES), min_size=1)


@given(OBJECTS)
def test_lines(tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.getbasetemp() / "a.jsonl"
    path.write_text("\n\n".join(map(json.dumps, objects)))
    assert values(path) == objects
    assert [row.number for row in rows(path)] == list(range(1, 2 * len(objects), 2))


@given(OBJECTS, st.sampled_from([None, 1]), st.integers(1, 9))
def test_arrays_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    objects: list[dict[str, Any]],
    indent: int | None,
    piece: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.json"
    content = json.dumps(objects, indent=indent, ensure_ascii=False)
    path.write_text(content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE", piece)
        found = rows(path)
    assert [row.values for row in found] == objects
    lines = content.split("\n")
    assert all(lines[row.number - 1].lstrip(" [").startswith("{") for row in found)


def test_a_json_file_may_have_an_object_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n')
    assert [row.number for row in rows(path)] == [1, 2]


def test_columns_are_those_of_the_first_object(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\n{"b": 1, "a": 2}\n{"c": 1}\n')
    assert open_table(path).columns == ("b", "a")


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", r'{"a": "cut \ud83d", "b": ["\udc00"], "c": "\ud83d\ude00"}'
    )
    assert values(path) == [{"a": "cut \ufffd", "b": ["\ufffd"], "c": "\U0001f600"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "\n", "a.jsonl is empty"),
        ("a.json", "[]", "a.json is empty"),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a.jsonl:3: no valid JSON \("),
        ("a.jsonl", '{"a": 1}\n[1, "b"]\n', r'a.jsonl:2: \[1, "b"\] is no JSON object'),
        ("a.jsonl", '{"a": 1, "a": 2}\n', "a.jsonl:1: the key 'a' is there twice"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: no valid JSON"),
        ("a.json", '[\n{"a": 1},\n{"a": 2', "a.json:3: no valid JSON"),
        ("a.json", '[\n{"a": 1}\n', "a.json:3: no valid JSON"),
        ("a.json", '[\n{"a": 1},\n7]', "a.json:3: 7 is no JSON object"),
        ("a.json", '[{"a": 1}]\n[{"a": 2}]', "a.json:1: there is more behind the array's end"),
        ("a.json", '{\n"a": 1}', "a.json:1: no valid JSON"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert re.search(message, refusal(written(tmp_path / name, content)))
