"""Parquet: columns of every type as Python's values."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqzb.data.formats import open_table, parquet
from table_files import refusal, table_file, values, written


def test_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 2)
    columns = {
        "text": ["a", None, "é"],
        "class": pa.array(["x", "y", "x"]).dictionary_encode(),
        "number": [1, 2, 3],
        "share": [0.5, None, 1.0],
        "tags": [["O", "B-x"], [], None],
    }
    path = table_file(tmp_path / "a.parquet", columns)
    plain = columns | {"class": ["x", "y", "x"]}
    rows = zip(*plain.values(), strict=True)
    assert values(path) == [dict(zip(plain, row, strict=True)) for row in rows]

    table = open_table(path)
    assert (table.columns, table.unit) == (tuple(columns), "row")
    chosen = list(table.rows(["number"]))
    assert [dict(row.values) for row in chosen] == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert table.where(chosen[-1]) == f"{path}, row 3"


def test_refusals(tmp_path: Path) -> None:
    assert "a.parquet is no parquet file" in refusal(written(tmp_path / "a.parquet", "text"))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pq.write_table(twice, tmp_path / "b.parquet")
    assert "b.parquet: columns 1 and 2 are both called 'a'" in refusal(tmp_path / "b.parquet")
    not_utf8 = pa.array([b"caf\xe9"]).cast(pa.string(), safe=False)
    pq.write_table(
        pa.table({"a": pa.Array.from_buffers(pa.string(), 1, not_utf8.buffers())}),
        tmp_path / "c.parquet",
    )
    assert "c.parquet cannot be read further at its first row" in refusal(tmp_path / "c.parquet")


def test_damage(tmp_path: Path) -> None:
    path = Path(table_file(tmp_path / "a.parquet", {"a": [f"text {n}" for n in range(1000)]}))
    raw = bytearray(path.read_bytes())
    raw[100:200] = bytes(100)
    path.write_bytes(raw)
    assert "a.parquet cannot be read further" in refusal(path)
