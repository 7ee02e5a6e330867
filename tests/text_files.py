"""Files of text in every format, and the documents in them, for tests of sources and formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqzb.corpus.formats import lines
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.sources import documents, units
from sqzb.errors import UserError
from sqzb.recipe import Source

TEXTS = [f"Document {number}.\nIts é second line." for number in range(10)]


def rows(source: Source) -> list[str | UnreadableDocument]:
    lines._lines_before.cache_clear()  # tests write different files to the same path
    return [row for unit in units("s", source) for row in documents(unit, source)]


def read(source: Source) -> list[str]:
    found = rows(source)
    assert not [row for row in found if isinstance(row, UnreadableDocument)]
    return [str(row) for row in found]


def the_unreadable(source: Source) -> UnreadableDocument:
    """The only unreadable document of a source."""
    [unreadable] = [row for row in rows(source) if isinstance(row, UnreadableDocument)]
    return unreadable


def refusal(source: Source) -> str:
    with pytest.raises(UserError) as caught:
        rows(source)
    return str(caught.value)


def json_lines(texts: list[str], column: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts).encode()


def pages(texts: list[str]) -> bytes:
    """Pages as wikiextractor writes them."""
    content = ""
    for n, text in enumerate(texts):
        tag = f'<doc id="{n}" url="https://?curid={n}" title="A &amp; {n}">'
        content += f"{tag}\nA & {n}\n\n{text}\n</doc>\n\n"
    return content.encode()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parquet(path: Path, values: Any = TEXTS, column: str = "text", **options: Any) -> Path:
    pq.write_table(pa.table({"id": list(range(len(values))), column: values}), path, **options)
    return path
