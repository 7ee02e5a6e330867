"""Parquet files: rows are documents, and damage costs no more than its row group."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sqzb.corpus.formats.parquet
from sqzb.corpus import sources
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.sources import units
from sqzb.recipe import Source
from text_files import TEXTS, parquet, read, rows, the_unreadable, written

CATEGORICAL = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), CATEGORICAL])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_parquet_rows_are_documents(tmp_path: Path, kind: Any, compression: str) -> None:
    values = pa.array([*TEXTS, None, "", *TEXTS * 30], kind)  # more than are read at once
    path = parquet(
        tmp_path / "a.parquet", values, "body", row_group_size=100, compression=compression
    )
    assert read(Source(path=str(path), text="body")) == [*TEXTS, "", "", *TEXTS * 30]


def test_row_groups_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=2)
    group = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    monkeypatch.setattr(sources, "UNIT_BYTES", 2 * group)
    found = units("s", Source(path=str(path)))
    assert [[part[1:] for part in unit.parts] for unit in found] == [[(0, 2)], [(2, 4)], [(4, 5)]]
    assert read(Source(path=str(path))) == TEXTS


# Unreadable rows


def test_a_parquet_row_that_is_too_long_or_no_utf8_is_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqzb.corpus.formats.parquet, "LONGEST_DOCUMENT", 100)
    raw = [b"one", b"a" * 101, b"caf\xe9", b"two"]
    path = parquet(
        tmp_path / "a.parquet",
        pa.array(raw, pa.binary()).cast(pa.string(), safe=False),
        row_group_size=2,
    )
    one, long, latin, two = rows(Source(path=str(path)))
    assert (one, two) == ("one", "two")
    assert (
        isinstance(long, UnreadableDocument)
        and long.where == f"{path}, row 2"
        and "is over" in long.why
    )
    assert (
        isinstance(latin, UnreadableDocument)
        and latin.where == f"{path}, row 3"
        and "0xe9" in latin.why
    )


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"id": [1, 2], "body": ["a", "b"]}, "has no column text; it has id, body. "),
        ({"text": [1, 2]}, "column text holds int64, not text"),
        ({"text": [["a"], ["b"]]}, "not text"),
        ({"text": [{"a": "b"}]}, "not text"),
        ({"text": pa.array([b"a"], pa.binary())}, "holds binary, not text"),
    ],
)
def test_a_parquet_column_that_is_missing_or_no_text_is_named(
    tmp_path: Path, table: Any, why: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    bad = the_unreadable(Source(path=str(tmp_path / "a.parquet")))
    assert bad.where == str(tmp_path / "a.parquet") and why in bad.why


def test_a_parquet_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    assert (
        "has several columns text" in the_unreadable(Source(path=str(tmp_path / "a.parquet"))).why
    )


@pytest.mark.parametrize("damage", ["cut", "text", "no start"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, damage: str) -> None:
    path = parquet(tmp_path / "a.parquet")
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[:-20], "text": b"text", "no start": whole[len(whole) // 2 : -1]}[damage]
    )
    written(tmp_path / "b.parquet", whole)
    bad, *found = rows(Source(path=str(tmp_path)))
    assert (
        isinstance(bad, UnreadableDocument)
        and str(path) in bad.where
        and "cannot be read" in bad.why
    )
    assert found == TEXTS


def test_damaged_pages_cost_their_row_group_alone(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        TEXTS,
        row_group_size=5,
        compression="zstd",
        write_page_checksum=True,
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    bad, *found = rows(Source(path=str(path)))
    assert (
        isinstance(bad, UnreadableDocument)
        and bad.where == f"{path}, row group 0, behind row 0"
        and found == TEXTS[5:]
    )


def test_rows_that_do_not_come_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a page whose header, which has no checksum, tells of fewer."""

    class Short(pq.ParquetFile):  # type: ignore[misc,unused-ignore]
        def iter_batches(self, *args: Any, **options: Any) -> Iterator[Any]:
            yield from (batch.slice(1) for batch in super().iter_batches(*args, **options))

    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=5)
    monkeypatch.setattr(pq, "ParquetFile", Short)
    found = rows(Source(path=str(path)))
    assert [row for row in found if isinstance(row, str)] == TEXTS[1:5] + TEXTS[6:]
    assert [row.where for row in found if isinstance(row, UnreadableDocument)] == [
        f"{path}, row group 0, behind row 4",
        f"{path}, row group 1, behind row 9",
    ]
