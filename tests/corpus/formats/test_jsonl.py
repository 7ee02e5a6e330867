"""JSON lines: the text of each line, or why it has none."""

from pathlib import Path

import pytest

from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.recipe import Source
from text_files import json_lines, read, rows, written


def test_jsonl_skips_blank_lines_and_takes_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", '\ufeff{"text": "one"}\r\n\n  \n{"text": "two\u2028"}'.encode()
    )
    assert read(Source(path=str(path))) == ["one", "two\u2028"]


def test_half_a_character_in_jsonl_is_no_obstacle(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rb'{"text": "cut \ud83d here, whole \ud83d\ude00"}')
    assert read(Source(path=str(path))) == ["cut \ufffd here, whole \U0001f600"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is no JSON"),
        (b"\0", "is no JSON"),
        (b'{"text": "a"} {"text": "b"}', "is no JSON"),
        (b'{"text": %s}' % (b"9" * 5000), "is no JSON"),  # Python converts no number so long
        (b"[" * 10**5, "is no JSON"),
        (b'{"text": %s}' % (b"[" * 10**5 + b"]" * 10**5), "is no JSON"),
        (b"[1, 2]", "is no JSON object"),
        (b'"text"', "is no JSON object"),
        (b"null", "is no JSON object"),
        (b'{"body": "a", "id": 1}', "has no column text; it has body, id. "),
        (b'{"\\ud83d": "a"}', "has no column text; it has \ufffd. "),
        (b'{"text": 5}', "text holds '5', not text"),
        (b'{"text": ["a"]}', "not text"),
        (b'{"text": %s1%s}' % (b"[" * 900, b"]" * 900), ""),
    ],
)
def test_a_bad_json_line_is_named_in_its_place(tmp_path: Path, line: bytes, why: str) -> None:
    path = written(
        tmp_path / "a.jsonl",
        json_lines(["one", "two"]) + b"\n" + line + b"\n" + json_lines(["three"]),
    )
    one, two, bad, three = rows(Source(path=str(path)))
    assert isinstance(bad, UnreadableDocument) and bad.where == f"{path}:4" and why in bad.why
    assert [one, two, three] == ["one", "two", "three"]
    assert len(bad.why.encode()) < 1000


def test_a_null_is_an_empty_document_as_in_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": null}\n{"text": "a"}\n')
    assert read(Source(path=str(path))) == ["", "a"]
