"""Files of labelled rows in every format, for tests of formats and of own data."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqzb.data.formats import open_table
from sqzb.data.formats.common import Row
from sqzb.data.own import OwnData, OwnFiles, open_own
from sqzb.errors import UserError

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

Columns = Mapping[str, Sequence[Any]]


def compressed(content: bytes, ending: str) -> bytes:
    """Return content in the compression of an ending; as it is for another ending."""
    match ending:
        case ".gz":
            return gzip.compress(content, 1)
        case ".bz2":
            return bz2.compress(content)
        case ".xz":
            return lzma.compress(content, preset=0)
        case ".zst":
            packed: bytes = pa.compress(content, "zstd", asbytes=True)
            return packed
    return content


def written(path: Path, content: str | bytes) -> str:
    """Write a file, compressed where its name says so; its path."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(compressed(raw, path.suffix))
    return str(path)


def table_file(path: Path, columns: Columns) -> str:
    """Write columns in the format of the path's ending; the path."""
    names, rows = list(columns), list(zip(*columns.values(), strict=True))
    ending = path.suffixes[0]
    if ending == ".parquet":
        pq.write_table(pa.table(dict(columns)), path)
        return str(path)
    if ending in (".csv", ".tsv"):
        text = io.StringIO()
        writer = csv.writer(text, delimiter="," if ending == ".csv" else "\t")
        writer.writerows([names, *rows])
        return written(path, text.getvalue())
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    lines = [json.dumps(row, ensure_ascii=False) for row in objects]
    content = "\n".join(lines) if ending == ".jsonl" else f"[{', '.join(lines)}]"
    return written(path, content)


def rows(path: str | Path) -> list[Row]:
    return list(open_table(path).rows())


def values(path: str | Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in rows(path)]


def refusal(path: str | Path) -> str:
    """The message with which a file cannot be read."""
    with pytest.raises(UserError) as caught:
        rows(path)
    return str(caught.value)


def own(*train: str, **options: Any) -> OwnData:
    return open_own(OwnFiles(train=train, **options))


def own_refusal(*train: str, **options: Any) -> str:
    """The message with which own data cannot be opened."""
    with pytest.raises(UserError) as caught:
        own(*train, **options)
    return str(caught.value)
