"""Readers: every kind of file gives its documents in order, and what cannot be read is named in its place."""

import bz2
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.corpus import readers, sources
from sqzb.corpus.readers import PYTHON_DOCS, UnreadableDocument
from sqzb.recipe import Source
from text_files import TEXTS, json_lines, pages, parquet, read, refusal, rows, written

Hub = Callable[..., Any]


def the_bad(source: Source) -> UnreadableDocument:
    [bad] = [row for row in rows(source) if isinstance(row, UnreadableDocument)]
    return bad


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zst, ".bz2": bz2.compress}


# Every kind


@pytest.mark.parametrize("end", COMPRESS)
@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("a.jsonl", json_lines(TEXTS), {}, TEXTS),
        ("a.jsonl", json_lines(TEXTS, "body"), {"text": "body"}, TEXTS),
        ("a.txt", "\n\n".join(TEXTS).encode(), {}, ["\n\n".join(TEXTS)]),
        ("a.txt", "\n\n".join(TEXTS).encode(), {"txt_documents": "blank-lines"}, TEXTS),
        ("wiki_00", pages(TEXTS), {}, TEXTS),
        ("wiki_123", json_lines(TEXTS), {}, TEXTS),
    ],
)
def test_text_is_read_plain_and_compressed(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], expected: list[str], end: str
) -> None:
    path = written(tmp_path / f"{name}{end}", COMPRESS[end](content))
    for given_path in (path, tmp_path):
        assert [text.strip() for text in read(Source(path=str(given_path), **options))] == expected


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_nothing_compressed_is_an_empty_text(tmp_path: Path, end: str) -> None:
    written(tmp_path / f"a.txt{end}", COMPRESS[end](b""))
    written(tmp_path / f"b.jsonl{end}", COMPRESS[end](b""))
    written(tmp_path / f"wiki_00{end}", COMPRESS[end](b""))
    assert read(Source(path=str(tmp_path))) == [""]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_parquet_rows_are_documents(tmp_path: Path, kind: Any, compression: str) -> None:
    values = pa.array([*TEXTS, None, "", *TEXTS * 30], kind)  # more than are read at once
    path = parquet(tmp_path / "a.parquet", values, "body", row_group_size=100, compression=compression)
    assert read(Source(path=str(path), text="body")) == [*TEXTS, "", "", *TEXTS * 30]


def test_jsonl_skips_blank_lines_and_takes_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\ufeff{"text": "one"}\r\n\n  \n{"text": "two\u2028"}'.encode())
    assert read(Source(path=str(path))) == ["one", "two\u2028"]


def test_half_a_character_in_jsonl_is_no_obstacle(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rb'{"text": "cut \ud83d here, whole \ud83d\ude00"}')
    assert read(Source(path=str(path))) == ["cut \ufffd here, whole \U0001f600"]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ('<doc title="A">\nA\n\nText.\n</doc>', "\nText.\n"),
        ('<doc title="A">\nText.\n</doc>', "Text.\n"),  # only what the tag names is a title
        ('<doc title="A &amp; B">\r\nA & B\r\nText.\r\n</doc>\r\n', "Text.\r\n"),
        ('<doc>\n<doc title="A">\nA\n <doc > and </doc> in a line\n</doc>', None),
        ('<doc title="A">\n</doc>', ""),
    ],
)
def test_a_wiki_page_is_its_text_without_title(tmp_path: Path, page: str, text: str | None) -> None:
    found = rows(Source(path=str(written(tmp_path / "wiki_00", page.encode()))))
    if text is None:
        assert found == [
            UnreadableDocument(f"{tmp_path}/wiki_00:1", "stands in no <doc ...>"),
            " <doc > and </doc> in a line\n",
        ]
    else:
        assert found == [text]


line = st.text("ab. é", min_size=1).filter(lambda text: text.strip(" ") != "")
blocks = st.lists(st.lists(line, min_size=1, max_size=3), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@given(blocks.filter(bool), st.integers(0, 3))
def test_blank_lines_part_documents(folder: Path, parts: list[list[str]], after: int) -> None:
    text = "\n" + "\n \n\n".join("\n".join(block) for block in parts) + "\n" * after
    path = written(folder / "blank.txt", text.encode())
    found = read(Source(path=str(path), txt_documents="blank-lines"))
    assert [document.rstrip("\n").split("\n") for document in found] == parts


def test_python_docs_are_running_prose() -> None:
    texts = [text for text in read(Source(path=PYTHON_DOCS)) if text]
    assert len(texts) > 30 and sum(map(len, texts)) > 100_000
    assert all(paragraph[0].isupper() and paragraph[-1] in ".:" for text in texts for paragraph in text.split("\n\n"))


# What cannot be read


def test_text_that_is_not_utf8_is_named_in_its_place(tmp_path: Path) -> None:
    latin = "caf\u00e9".encode("latin1")
    content = b'{"text": "one"}\n{"text": "%s"}\n{"text": "two"}\n' % latin
    for name, around in [("a.jsonl", ["one", "two"]), ("a.txt", [])]:
        path = written(tmp_path / name, content)
        found = rows(Source(path=str(path)))
        [bad] = [row for row in found if isinstance(row, UnreadableDocument)]
        assert bad.where == f"{path}:2" and "is not UTF-8" in bad.why and "0xe9" in bad.why
        assert found == [*around[:1], bad, *around[1:]]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("split", ["file", "blank-lines"])
def test_the_line_and_byte_are_right_behind_a_byte_order_mark(tmp_path: Path, mark: bytes, split: Any) -> None:
    path = written(tmp_path / "a.txt", mark + b"a\nb\n\xe9\nc\n")
    bad = the_bad(Source(path=str(path), txt_documents=split))
    assert bad.where == f"{path}:3" and "0xe9" in bad.why


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
        (b'{"text": null}', "text holds 'None', not text"),
        (b'{"text": ["a"]}', "not text"),
        (b'{"text": %s1%s}' % (b"[" * 900, b"]" * 900), ""),
    ],
)
def test_a_bad_json_line_is_named_in_its_place(tmp_path: Path, line: bytes, why: str) -> None:
    path = written(tmp_path / "a.jsonl", json_lines(["one", "two"]) + b"\n" + line + b"\n" + json_lines(["three"]))
    one, two, bad, three = rows(Source(path=str(path)))
    assert isinstance(bad, UnreadableDocument) and bad.where == f"{path}:4" and why in bad.why
    assert [one, two, three] == ["one", "two", "three"]
    assert len(bad.why.encode()) < 1000


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        (b"<doc >\nlost\n<doc >\none\n</doc>\n", 1, "has no </doc>"),
        (b"<doc >\none\n</doc>\n<doc >\nlost\n", 4, "has no </doc>"),
        (b"<doc >\none\n</doc>\nlost\nlost\n</doc>\n", 4, "stands in no <doc ...>"),
        (b"lost\n<doc >\none\n</doc>\n", 1, "stands in no <doc ...>"),
        (b"<doc >\none\n</doc>\n<doc >\nlost\xff\n</doc>\n", 5, "is not UTF-8"),
    ],
)
def test_a_broken_wiki_page_is_named(tmp_path: Path, content: bytes, where: int, why: str) -> None:
    path = written(tmp_path / "wiki_00", content)
    found = rows(Source(path=str(path)))
    [bad] = [row for row in found if isinstance(row, UnreadableDocument)]
    assert bad.where == f"{path}:{where}" and why in bad.why and [row for row in found if row != bad] == ["one\n"]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("name", ["a.jsonl", "blocks.txt", "one.txt", "wiki_00", "wiki_01"])
def test_what_is_too_long_is_no_document(tmp_path: Path, name: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 100)
    monkeypatch.setattr(sources, "UNIT_BYTES", 150)
    texts = ["one", "word " * 50, "two", "line\n" * 50, "three", "a" * 101 + "\nb", "four"]
    content = {
        "a.jsonl": json_lines(texts),
        "blocks.txt": "\n\n".join(texts).encode(),
        "one.txt": "\n\n".join(texts).encode(),
        "wiki_00": "".join(f"<doc >\n{text}\n</doc>\n" for text in texts).encode(),
        "wiki_01": json_lines(texts),
    }[name]
    path = written(tmp_path / f"{name}{end}", COMPRESS[end](content))
    found = rows(Source(path=str(path), txt_documents="file" if name == "one.txt" else "blank-lines"))
    kept = [row.strip() if isinstance(row, str) else "bad" for row in found]
    assert kept == (["bad"] if name == "one.txt" else ["one", "bad", "two", "bad", "three", "bad", "four"])
    assert all(
        "is over 0 MiB long" in row.why and str(path) in row.where
        for row in found
        if isinstance(row, UnreadableDocument)
    )


def test_a_parquet_row_that_is_too_long_or_no_utf8_is_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 100)
    raw = [b"one", b"a" * 101, b"caf\xe9", b"two"]
    path = parquet(tmp_path / "a.parquet", pa.array(raw, pa.binary()).cast(pa.string(), safe=False), row_group_size=2)
    one, long, latin, two = rows(Source(path=str(path)))
    assert (one, two) == ("one", "two")
    assert isinstance(long, UnreadableDocument) and long.where == f"{path}, row 2" and "is over" in long.why
    assert isinstance(latin, UnreadableDocument) and latin.where == f"{path}, row 3" and "0xe9" in latin.why


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
def test_a_parquet_column_that_is_missing_or_no_text_is_named(tmp_path: Path, table: Any, why: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    bad = the_bad(Source(path=str(tmp_path / "a.parquet")))
    assert bad.where == str(tmp_path / "a.parquet") and why in bad.why


def test_a_parquet_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    assert "has several columns text" in the_bad(Source(path=str(tmp_path / "a.parquet"))).why


@pytest.mark.parametrize("damage", ["cut", "text", "no start"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, damage: str) -> None:
    path = parquet(tmp_path / "a.parquet")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-20], "text": b"text", "no start": whole[len(whole) // 2 : -1]}[damage])
    written(tmp_path / "b.parquet", whole)
    bad, *found = rows(Source(path=str(tmp_path)))
    assert isinstance(bad, UnreadableDocument) and str(path) in bad.where and "cannot be read" in bad.why
    assert found == TEXTS


def test_damaged_pages_cost_their_row_group_alone(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=5, compression="zstd", write_page_checksum=True)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    bad, *found = rows(Source(path=str(path)))
    assert (
        isinstance(bad, UnreadableDocument) and bad.where == f"{path}, row group 0, behind row 0" and found == TEXTS[5:]
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


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_a_compressed_file_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path, end: str) -> None:
    numbers = [f"{number * 7919 % 10007}" for number in range(60_000)]
    whole = COMPRESS[end](json_lines(numbers))
    path = written(tmp_path / f"a.jsonl{end}", whole[: len(whole) * 3 // 4])
    *found, bad = rows(Source(path=str(path)))
    assert (
        isinstance(bad, UnreadableDocument)
        and bad.where == f"{path}, behind row {len(found)}"
        and "cannot be read" in bad.why
    )
    assert found and found == numbers[: len(found)]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.zst", "a.txt.bz2", "wiki_00.gz"])
@pytest.mark.parametrize("split", ["file", "blank-lines"])
def test_what_is_not_compressed_as_its_name_says_is_named(tmp_path: Path, name: str, split: Any) -> None:
    path = written(tmp_path / name, json_lines(TEXTS))
    bad = the_bad(Source(path=str(path), txt_documents=split))
    assert str(path) in bad.where and "cannot be read" in bad.why


# The Hub


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_column_that_is_missing_or_no_text_is_named(hub: Hub, streaming: bool) -> None:
    hub({"id": [1, 2, 3], "body": ["a", "b", "c"]})
    assert "no column text; it has id, body" in refusal(Source(path="owner/name", streaming=streaming))
    found = rows(Source(path="owner/name", text="id", streaming=streaming))
    assert len(found) == 3
    for row in found:
        assert isinstance(row, UnreadableDocument) and row.where.startswith("owner/name, ") and "id holds '" in row.why


def test_a_hub_data_set_that_cannot_be_opened_is_refused(hub: Hub) -> None:
    def fails(streaming: bool) -> None:
        raise ConnectionError("no route to host")

    hub(fails)
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "no route to host" in message


def generated() -> Iterator[dict[str, str]]:
    yield {"text": "one"}
    raise ConnectionError("reset by peer")


def test_a_hub_data_set_that_breaks_off_is_refused(hub: Hub) -> None:
    hub(lambda streaming: datasets.IterableDataset.from_generator(generated))
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "reset by peer" in message and "again" in message


def test_a_hub_column_that_only_rows_tell_of_is_named(hub: Hub) -> None:
    hub(lambda streaming: datasets.IterableDataset.from_generator(lambda: iter([{"text": "one"}, {"text": "two"}])))
    found = rows(Source(path="owner/name", text="body"))
    assert [row.where for row in found if isinstance(row, UnreadableDocument)] == [
        "owner/name, shard 0, row 1",
        "owner/name, shard 0, row 2",
    ]
    assert all(isinstance(row, UnreadableDocument) and "no column body; it has text" in row.why for row in found)
