"""CSV and TSV: the rows of Python's and pandas' writers, and each broken rule with its line."""

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.formats import open_table
from table_files import refusal, rows, values, written

# Everything but NUL, which no text has, and halves of characters.
CELLS = st.text(
    st.one_of(st.sampled_from(" \",;\t\n\r'\\é\ufeff"), st.characters(exclude_categories=["Cs"])),
    max_size=8,
).map(lambda text: text.replace("\0", ""))


def grids(cells: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    """Rows of two to four cells, the same number in each."""
    width = st.integers(2, 4)
    return width.flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1))


@given(grids(CELLS), st.sampled_from(["\r\n", "\n"]))
def test_the_rows_of_pythons_writer(
    tmp_path_factory: pytest.TempPathFactory, grid: list[list[str]], end: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "grid.csv"
    header = [f"column {number}" for number in range(len(grid[0]))]
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([header, *grid])
    path.write_bytes(text.getvalue().encode())
    assert [list(row.values()) for row in values(path)] == grid


@given(grids(CELLS.map(lambda text: text.replace("\r", ""))))  # pandas writes it without quotes
def test_rows_are_those_that_pandas_reads(
    tmp_path_factory: pytest.TempPathFactory, grid: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pandas.csv"
    frame = pd.DataFrame(grid, columns=[f"c{number}" for number in range(len(grid[0]))])
    frame.to_csv(path, index=False)
    assert [list(row.values()) for row in values(path)] == grid


@given(grids(CELLS.map(lambda text: "".join(c for c in text if c not in "\t\r\n"))))
def test_tsv_without_quotes_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, grid: list[list[str]]
) -> None:
    """One malformed quote proves that quotes are characters, in every line."""
    path = tmp_path_factory.getbasetemp() / "plain.tsv"
    grid[0][0] = '"so" he said'
    header = [f"c{number}" for number in range(len(grid[0]))]
    path.write_bytes("".join("\t".join(row) + "\n" for row in [header, *grid]).encode())
    assert [list(row.values()) for row in values(path)] == grid


def test_quoted_tsv(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'text\tlabel\n"a ""b"" c"\t1\n"two\nlines\tand a tab"\t0\n')
    assert [row.values["text"] for row in rows(path)] == ['a "b" c', "two\nlines\tand a tab"]


def test_tsv_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'text\tlabel\n"a\t1\nb"\t0\n')
    assert "a.tsv:2: a quote here may begin a cell of several lines" in refusal(path)


def test_a_number_is_the_line_where_a_row_begins(tmp_path: Path) -> None:
    content = '\r\ntext,label\r\n\r\n"two\r\n\r\nlines",1\r\nx,2\r\n\r\n'
    path = written(tmp_path / "a.csv", content)
    assert [row.number for row in rows(path)] == [4, 7]
    table = open_table(path)
    assert table.where(rows(path)[0]) == f"{path}:4"
    assert (table.columns, table.unit) == (("text", "label"), "line")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("text;label\na, b;1\n", ("text", "label")),
        ("text\tlabel\na, b\t1\n", ("text", "label")),
        ('"a,b";label\nx;1\n', ("a,b", "label")),  # a comma in quotes divides nothing
        ('"text";"label"\nx;1\n', ("text", "label")),
        ("text;x,label\na, b\n", ("text;x", "label")),  # both divide: the ending decides
        ("text, label \na,1\n", ("text", "label")),
    ],
)
def test_the_delimiter_is_found_in_the_header(
    tmp_path: Path, content: str, columns: tuple[str, ...]
) -> None:
    path = written(tmp_path / "a.csv", content)
    assert open_table(path).columns == columns
    assert len(rows(path)) == 1


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        path = written(tmp_path / "a.csv", "text,label\né,1\n".encode(encoding))
        assert values(path) == [{"text": "é", "label": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv is empty"),
        ("\n\n", "a.csv is empty"),
        ("a,b\n1,2\n1,2,3\n", "a.csv:3: the row has 3 cells, and the header has 2. Put a cell"),
        ("a,b\n1,2\n1\n", "a.csv:3: the row has 1 cell, and the header has 2. Add"),
        ("1,good film\n0,bad, bad\n", "The first line looks like data"),
        ("a,b,a\n", "a.csv:1: columns 1 and 3 are both called 'a'"),
        ("a,,\n", "a.csv:1: columns 2 and 3 have no name"),
        ('a,b\n1,2\n"x\ny,2\n', "a.csv:3: a quoted cell begins in this row and never ends"),
        ('a,b\n"x"y,2\n', "a.csv:2: a quoted cell is followed by more text in line 2"),
        (b"a,b\n1,2\ncaf\xe9,2\n", r"a.csv:3: byte 0xe9 after 'caf' is not UTF-8; .* Windows-1252"),
        ("a,b\n日本語,2\n".encode("shift_jis"), "a.csv:2: byte .* not a Western encoding"),
        ("a,b\n1,2\n".encode("utf-16-le"), "a.csv:1: there is a NUL .* without a byte order mark"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "begins as UTF-16 and cannot be decoded further"),
    ],
)
def test_refusals(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path / "a.csv", content)
    assert re.search(message, refusal(path))
