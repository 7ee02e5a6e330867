"""Columns of texts without labels, and the reading that checks them before any work."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqzb.data.formats import open_table
from sqzb.data.formats.common import Row, Table
from sqzb.data.texts import TextTable, check, choose_texts
from sqzb.errors import UserError


def table(columns: Sequence[str], *rows: Sequence[Any]) -> Table:
    """Return a table in memory, whose rows are lines from 2 on."""
    found = [Row(n, dict(zip(columns, row, strict=True))) for n, row in enumerate(rows, 2)]
    return Table("new.csv", tuple(columns), "line", lambda wanted: iter(found))


@pytest.mark.parametrize(
    ("columns", "text", "remembered", "needed", "chosen"),
    [
        (["id", "text"], [], [], None, ("text",)),
        (["id", "body_2"], ["body_2"], ["text"], 1, ("body_2",)),
        (["a", "b", "text"], [], ["b"], 1, ("b",)),
        (["a", "text"], [], ["b"], 1, ("text",)),
        (["anything"], [], [], 1, ("anything",)),
        (["premise", "hypothesis", "x"], [], [], 2, ("premise", "hypothesis")),
        (["text_a", "text_b"], [], ["p", "h"], 2, ("text_a", "text_b")),
    ],
)
def test_columns_are_given_or_remembered_or_recognised(
    columns: list[str],
    text: list[str],
    remembered: list[str],
    needed: int | None,
    chosen: tuple[str, ...],
) -> None:
    assert choose_texts(table(columns), text, remembered, needed).columns == chosen


@pytest.mark.parametrize(
    ("columns", "text", "needed", "said"),
    [
        (["id", "txet"], ["text"], 1, "no column 'text'. Did you mean 'txet'"),
        (["a", "b"], [], 1, "no column is recognised"),
        (["text"], ["text"], 2, "needs two texts per example, and --text is text. .* --text A,B"),
        (["q", "a"], ["q", "a"], 1, "needs one text per example, and --text is q,a"),
    ],
)
def test_columns_that_do_not_fit_are_told(
    columns: list[str], text: list[str], needed: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        choose_texts(table(columns), text, [], needed)


def test_an_empty_text_is_none() -> None:
    rows = table(["a", "b"], ("x", ""), ("", " "), (None, float("nan")))
    pairs, single = TextTable(rows, ("a", "b")), TextTable(rows, ("b",))
    assert [pairs.text(row) for row in rows.rows()] == [("x", ""), None, None]
    assert [single.text(row) for row in rows.rows()] == [None, None, None]
    words = table(["words"], (["a", "b"],), ([],))
    assert [TextTable(words, ("words",), True).text(row) for row in words.rows()] == [
        ["a", "b"],
        None,
    ]


@pytest.mark.parametrize(("value", "said"), [(3, "a number"), (["a"], "a list"), ({}, "a dict")])
def test_a_value_that_is_no_text_is_told_with_its_line(value: Any, said: str) -> None:
    rows = TextTable(table(["text"], ("fine",), (value,)), ("text",))
    with pytest.raises(UserError, match=rf"new.csv:3: 'text' holds {said} .* --text"):
        check(rows, types=False)


def test_all_keys_of_json_lines_are_columns(tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    objects = [{"text": "a"}, {"text": "b", "n": 1}, {"text": "c", "n": 2.5, "d": None}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in objects))
    checked = check(choose_texts(open_table(file), [], [], 1), types=True)
    assert checked.rows == 3 and checked.columns == ("text", "n", "d")
    assert checked.schema is not None
    assert checked.schema.types == [pa.string(), pa.float64(), pa.null()]


def test_types_of_parquet_are_kept_and_mixed_types_told(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.large_string(), "when": pa.timestamp("ms"), "n": pa.int8()})
    pq.write_table(pa.Table.from_pylist([{"text": "a"}], schema), tmp_path / "new.parquet")
    opened = choose_texts(open_table(tmp_path / "new.parquet"), [], [], 1)
    assert check(opened, types=True).schema == schema

    mixed = TextTable(table(["text", "x"], ("a", 1), ("b", "two")), ("text",))
    assert check(mixed, types=False).rows == 2
    with pytest.raises(UserError, match="values of several types"):
        check(mixed, types=True)
