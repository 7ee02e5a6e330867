"""Sources: every kind gives its documents in order, however it is divided, and what cannot be read is named."""

import bz2
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzb.corpus import readers, sources
from sqzb.corpus.readers import PYTHON_DOCS, Bad
from sqzb.corpus.sources import documents, units
from sqzb.errors import UserError
from sqzb.recipe import Source

TEXTS = [f"Document {number}.\nIts é second line." for number in range(10)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def rows(source: Source) -> list[str | Bad]:
    readers._lines_before.cache_clear()  # tests write different files to the same path
    return [row for unit in units("s", source) for row in documents(unit, source)]


def read(source: Source) -> list[str]:
    found = rows(source)
    assert not [row for row in found if isinstance(row, Bad)]
    return [str(row) for row in found]


def the_bad(source: Source) -> Bad:
    [bad] = [row for row in rows(source) if isinstance(row, Bad)]
    return bad


def refusal(source: Source) -> str:
    with pytest.raises(UserError) as caught:
        rows(source)
    return str(caught.value)


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zst, ".bz2": bz2.compress}


def json_lines(texts: list[str], column: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts).encode()


def pages(texts: list[str]) -> bytes:
    """As wikiextractor writes them."""
    return "".join(
        f'<doc id="{n}" url="https://?curid={n}" title="A &amp; {n}">\nA & {n}\n\n{text}\n</doc>\n\n'
        for n, text in enumerate(texts)
    ).encode()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def jsonl(path: Path, texts: list[str] = TEXTS, column: str = "text") -> Path:
    return written(path, json_lines(texts, column))


def parquet(path: Path, values: Any = TEXTS, column: str = "text", **options: Any) -> Path:
    pq.write_table(pa.table({"id": list(range(len(values))), column: values}), path, **options)
    return path


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
        assert found == [Bad(f"{tmp_path}/wiki_00:1", "stands in no <doc ...>"), " <doc > and </doc> in a line\n"]
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


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.parquet", "wiki_00"])
def test_sentences_are_gathered_to_documents(tmp_path: Path, name: str) -> None:
    said = [f"Sentence {number}." for number in range(7)]
    {
        "a.txt": lambda path: written(path, "\n\n".join(said).encode() + b"\n"),
        "a.txt.gz": lambda path: written(path, gzip.compress("\n".join(said).encode())),
        "a.jsonl": lambda path: jsonl(path, said),
        "a.parquet": lambda path: parquet(path, said),
        "wiki_00": lambda path: jsonl(path, said),
    }[name](tmp_path / name)
    found = read(Source(path=str(tmp_path / name), sentences_per_document=3))
    assert [[one for one in document.split("\n") if one] for document in found] == [said[:3], said[3:6], said[6:]]


def test_bad_rows_among_sentences_stay_bad(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"One.\n\xff\nTwo.\nThree.\n")
    [bad, *found] = rows(Source(path=str(path), sentences_per_document=2))
    assert isinstance(bad, Bad) and bad.where == f"{path}:2" and found == ["One.\n\n\nTwo.\n", "Three.\n"]


def test_python_docs_are_running_prose() -> None:
    texts = [text for text in read(Source(path=PYTHON_DOCS)) if text]
    assert len(texts) > 30 and sum(map(len, texts)) > 100_000
    assert all(paragraph[0].isupper() and paragraph[-1] in ".:" for text in texts for paragraph in text.split("\n\n"))


# Division


def divided(content: bytes, name: str, unit_bytes: int, folder: Path, **options: Any) -> list[str | Bad]:
    source = Source(path=str(written(folder / name, content)), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "UNIT_BYTES", unit_bytes)
        found = units("s", source)
        assert found == units("s", source)
        ends = [(part.start, part.end) for unit in found for part in unit.parts]
        assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]
        assert (ends[0][0], ends[-1][1]) == (0, len(content)) and sum(unit.size for unit in found) == len(content)
        assert all(unit.size <= unit_bytes for unit in found)
        return rows(source)


ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n \n", "\n\n\n\n"])
text_bytes = st.lists(st.tuples(line, ends), min_size=1, max_size=12).map(
    lambda some: "".join(text + end for text, end in some).encode()
)
chips = st.sampled_from([b"\n", b"\r\n", b" ", b"a", "é".encode(), b"\xff", b"{", b'{"text": "b"}\n', b"\xef\xbb\xbf"])
wiki_chips = st.sampled_from([b"\n", b"<doc >\n", b"</doc>\n", b"text\n", b"\xff\n", b"a", b"<doc ", b"\n\n"])
plenty = settings(max_examples=max(100, settings().max_examples), suppress_health_check=list(HealthCheck))


def of_chips(chip: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(chip, min_size=1, max_size=25).map(b"".join)


@plenty
@given(st.data(), st.integers(1, 200) | st.integers(1, 12))
@pytest.mark.parametrize("name", ["a.jsonl", "blocks.txt", "wiki_00"])
def test_whole_and_divided_are_the_same(folder: Path, name: str, data: st.DataObject, unit_bytes: int) -> None:
    """Documents and what is bad, with its line, wherever a part begins: in a line, a character, a page."""
    texts = data.draw(st.lists(line, min_size=1, max_size=12))
    valid = {"a.jsonl": json_lines(texts), "blocks.txt": data.draw(text_bytes), "wiki_00": pages(texts)}[name]
    content = data.draw(st.just(valid) | of_chips(wiki_chips if name == "wiki_00" else chips))
    whole = divided(content, name, 2**20, folder, txt_documents="blank-lines")
    assert divided(content, name, unit_bytes, folder, txt_documents="blank-lines") == whole
    if content == valid and name != "blocks.txt":
        assert [row.strip("\n") if isinstance(row, str) else row for row in whole] == texts


@plenty
@given(of_chips(chips), st.integers(1, 200) | st.integers(1, 12))
def test_divided_sentences_are_none_lost_or_doubled(folder: Path, content: bytes, unit_bytes: int) -> None:
    """Where a part ends a document may end early."""

    def said(found: list[str | Bad]) -> list[str | Bad]:
        bad: list[str | Bad] = [row for row in found if isinstance(row, Bad)]
        return bad + [one for row in found if isinstance(row, str) for one in row.split("\n") if one.strip()]

    whole = divided(content, "said.txt", 2**20, folder, sentences_per_document=2)
    assert said(divided(content, "said.txt", unit_bytes, folder, sentences_per_document=2)) == said(whole)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "wiki_00"])
def test_a_long_line_is_not_read_by_every_part(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a large file without ends of lines, or without blank lines, would be read as often as it has parts."""
    done = 0

    class Counted(io.BufferedReader):
        def __init__(self, path: str) -> None:
            super().__init__(io.FileIO(path))

        def readline(self, most: int | None = -1) -> bytes:
            nonlocal done
            raw = super().readline(most)
            done += len(raw)
            return raw

    monkeypatch.setattr(readers, "_open", Counted)
    for content in (b"a" * 2**24, (b"a" * 99 + b"\n") * 2**14):
        monkeypatch.setattr(sources, "UNIT_BYTES", len(content) // 16)
        done = 0
        rows(Source(path=str(written(tmp_path / name, content)), txt_documents="blank-lines"))
        assert done < 3 * len(content)


def test_small_files_are_put_together_and_large_ones_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNIT_BYTES", 1000)
    for number in range(7):
        written(tmp_path / f"{number}.txt", b"%d" % number * 300)
    large = jsonl(tmp_path / "8.jsonl", TEXTS * 10)
    found = units("s", Source(path=str(tmp_path)))
    assert [[Path(part.path).name for part in unit.parts] for unit in found[:3]] == [
        ["0.txt", "1.txt", "2.txt"],
        ["3.txt", "4.txt", "5.txt"],
        ["6.txt"],
    ]
    assert [unit.size for unit in found[:3]] == [900, 900, 300] and {unit.kind for unit in found[3:]} == {"jsonl"}
    assert len(found) - 3 == -(-large.stat().st_size // 1000)
    assert read(Source(path=str(tmp_path))) == [str(number) * 300 for number in range(7)] + TEXTS * 10


def test_row_groups_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=2)
    group = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    monkeypatch.setattr(sources, "UNIT_BYTES", 2 * group)
    found = units("s", Source(path=str(path)))
    assert [[part[1:] for part in unit.parts] for unit in found] == [[(0, 2)], [(2, 4)], [(4, 5)]]
    assert read(Source(path=str(path))) == TEXTS


# Paths


def test_folders_and_globs_stand_for_every_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "deep/a.txt", "deep/er/c.txt", "deep/er/wiki_07"):
        written(tmp_path / name, b"<doc >\nw\n</doc>" if "wiki" in name else Path(name).stem.encode())
    (tmp_path / "deep" / "notes.md").write_text("not text")
    assert "notes.md" in refusal(Source(path=str(tmp_path / "**")))  # which names it, and it cannot be read
    (tmp_path / "deep" / "notes.md").unlink()
    for pattern, stems in [
        ("", ["b", "a", "c", "w\n"]),
        ("**", ["b", "a", "c", "w\n"]),
        ("**/*.txt", ["b", "a", "c"]),
        ("**/wiki_*", ["w\n"]),
        ("*.txt", ["b"]),
        ("de*", ["a", "c", "w\n"]),
        ("deep/[ac].txt", ["a"]),
    ]:
        assert read(Source(path=str(tmp_path / pattern))) == stems


@pytest.mark.parametrize("path", ["absent.txt", "absent/*.jsonl", "one/two/three", "C:\\text"])
def test_a_missing_path_is_named(path: str) -> None:
    assert path in refusal(Source(path=path)) and "Source s" in refusal(Source(path=path))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "wiki_00", "a.txt.gz"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for path in (tmp_path / name, tmp_path):
        assert f"{tmp_path / name} is empty" in refusal(Source(path=str(path)))


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_nothing_compressed_is_an_empty_text(tmp_path: Path, end: str) -> None:
    written(tmp_path / f"a.txt{end}", COMPRESS[end](b""))
    written(tmp_path / f"b.jsonl{end}", COMPRESS[end](b""))
    written(tmp_path / f"wiki_00{end}", COMPRESS[end](b""))
    assert read(Source(path=str(tmp_path))) == [""]


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    assert f"{tmp_path} has no" in refusal(Source(path=str(tmp_path)))


@pytest.mark.parametrize("name", ["a.pdf", "a.parquet.gz", "a.gz", "a", "wiki_", "wiki_0.csv", "a.txt.xz"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b"x")
    assert f"{path} is of no kind" in refusal(Source(path=str(path)))


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this disk takes no such name")
    assert r"caf\udce9.txt" in refusal(Source(path=str(tmp_path)))


# What cannot be read


def test_text_that_is_not_utf8_is_named_in_its_place(tmp_path: Path) -> None:
    latin = "caf\u00e9".encode("latin1")
    content = b'{"text": "one"}\n{"text": "%s"}\n{"text": "two"}\n' % latin
    for name, around in [("a.jsonl", ["one", "two"]), ("a.txt", [])]:
        path = written(tmp_path / name, content)
        found = rows(Source(path=str(path)))
        [bad] = [row for row in found if isinstance(row, Bad)]
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
    assert isinstance(bad, Bad) and bad.where == f"{path}:4" and why in bad.why
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
    [bad] = [row for row in found if isinstance(row, Bad)]
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
    assert all("is over 0 MiB long" in row.why and str(path) in row.where for row in found if isinstance(row, Bad))


def test_a_parquet_row_that_is_too_long_or_no_utf8_is_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 100)
    raw = [b"one", b"a" * 101, b"caf\xe9", b"two"]
    path = parquet(tmp_path / "a.parquet", pa.array(raw, pa.binary()).cast(pa.string(), safe=False), row_group_size=2)
    one, long, latin, two = rows(Source(path=str(path)))
    assert (one, two) == ("one", "two")
    assert isinstance(long, Bad) and long.where == f"{path}, row 2" and "is over" in long.why
    assert isinstance(latin, Bad) and latin.where == f"{path}, row 3" and "0xe9" in latin.why


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
    assert isinstance(bad, Bad) and str(path) in bad.where and "cannot be read" in bad.why
    assert found == TEXTS


def test_damaged_pages_cost_their_row_group_alone(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=5, compression="zstd", write_page_checksum=True)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    bad, *found = rows(Source(path=str(path)))
    assert isinstance(bad, Bad) and bad.where == f"{path}, row group 0, behind row 0" and found == TEXTS[5:]


def test_rows_that_do_not_come_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a page whose header, which has no checksum, tells of fewer."""

    class Short(pq.ParquetFile):  # type: ignore[misc,unused-ignore]
        def iter_batches(self, *args: Any, **options: Any) -> Iterator[Any]:
            yield from (batch.slice(1) for batch in super().iter_batches(*args, **options))

    path = parquet(tmp_path / "a.parquet", TEXTS, row_group_size=5)
    monkeypatch.setattr(pq, "ParquetFile", Short)
    found = rows(Source(path=str(path)))
    assert [row for row in found if isinstance(row, str)] == TEXTS[1:5] + TEXTS[6:]
    assert [row.where for row in found if isinstance(row, Bad)] == [
        f"{path}, row group 0, behind row 4",
        f"{path}, row group 1, behind row 9",
    ]


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_a_compressed_file_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path, end: str) -> None:
    numbers = [f"{number * 7919 % 10007}" for number in range(60_000)]
    whole = COMPRESS[end](json_lines(numbers))
    path = written(tmp_path / f"a.jsonl{end}", whole[: len(whole) * 3 // 4])
    *found, bad = rows(Source(path=str(path)))
    assert isinstance(bad, Bad) and bad.where == f"{path}, behind row {len(found)}" and "cannot be read" in bad.why
    assert found and found == numbers[: len(found)]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.zst", "a.txt.bz2", "wiki_00.gz"])
@pytest.mark.parametrize("split", ["file", "blank-lines"])
def test_what_is_not_compressed_as_its_name_says_is_named(tmp_path: Path, name: str, split: Any) -> None:
    path = written(tmp_path / name, json_lines(TEXTS))
    bad = the_bad(Source(path=str(path), txt_documents=split))
    assert str(path) in bad.where and "cannot be read" in bad.why


# The Hub


class Hub:
    """Stands behind load_dataset and HfApi; notes what both are called with."""

    def __init__(self, data: Callable[[bool], Any], commit: str | Exception) -> None:
        self.data, self.commit = data, commit
        self.loads: list[tuple[Any, Any]] = []
        self.asked: list[tuple[str, str | None]] = []

    def load(self, *args: Any, streaming: bool, **options: Any) -> Any:
        self.loads.append((args, options))
        return self.data(streaming)

    def dataset_info(self, path: str, revision: str | None = None) -> SimpleNamespace:
        self.asked.append((path, revision))
        if isinstance(self.commit, Exception):
            raise self.commit
        return SimpleNamespace(sha=self.commit)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    def put(data: dict[str, list[Any]] | Callable[[bool], Any], shards: int = 3, commit: Any = COMMIT) -> Hub:
        def table(streaming: bool) -> Any:
            whole = datasets.Dataset.from_dict(data)
            return whole.to_iterable_dataset(num_shards=shards) if streaming else whole

        made = Hub(data if callable(data) else table, commit)
        monkeypatch.setattr(datasets, "load_dataset", made.load)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        return made

    return put


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_source_is_read_at_one_commit(
    hub: Callable[..., Hub], streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "UNIT_BYTES", 100)
    made = hub({"body": [*TEXTS, None], "id": list(range(11))})
    source = Source(
        path="owner/name", text="body", config="20231101.en", revision="main", split="test", streaming=streaming
    )
    found = units("s", source)
    assert made.asked == [("owner/name", "main")] and {unit.revision for unit in found} == {COMMIT}
    bounds = [part[1:] for unit in found for part in unit.parts]
    assert len(bounds) >= 3 and [end for _, end in bounds[:-1]] == [start for start, _ in bounds[1:]]
    assert [row for unit in found for row in documents(unit, source)] == [*TEXTS, ""]
    assert len(made.asked) == 1
    assert made.loads == [(("owner/name", "20231101.en"), {"split": "test", "revision": COMMIT})] * (len(found) + 1)


@pytest.mark.parametrize(
    ("revision", "commit", "asked", "used"),
    [
        (None, COMMIT, 1, COMMIT),
        (COMMIT[::-1], COMMIT, 0, COMMIT[::-1]),
        ("main", ConnectionError("no route to host"), 1, "main"),  # as where all is in the cache
        (None, None, 1, None),
    ],
)
def test_the_commit_is_asked_for_once(
    hub: Callable[..., Hub], revision: str | None, commit: Any, asked: int, used: str | None
) -> None:
    made = hub({"text": TEXTS}, commit=commit)
    assert {unit.revision for unit in units("s", Source(path="owner/name", revision=revision))} == {used}
    assert len(made.asked) == asked


def test_a_hub_source_gathers_sentences(hub: Callable[..., Hub]) -> None:
    hub({"text": ["A.", "B.", "C."]}, shards=1)
    assert read(Source(path="owner/name", sentences_per_document=2)) == ["A.\n\nB.", "C."]


def test_a_local_path_goes_before_the_hub(
    hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = hub({"text": ["hub"]})
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "owner" / "name", b"no kind")
    assert "owner/name is of no kind" in refusal(Source(path="owner/name"))
    written(tmp_path / "owner" / "name.txt", b"local")
    assert read(Source(path="owner/name.txt")) == ["local"]
    assert not made.loads and not made.asked


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_column_that_is_missing_or_no_text_is_named(hub: Callable[..., Hub], streaming: bool) -> None:
    hub({"id": [1, 2, 3], "body": ["a", "b", "c"]})
    assert "no column text; it has id, body" in refusal(Source(path="owner/name", streaming=streaming))
    found = rows(Source(path="owner/name", text="id", streaming=streaming))
    assert len(found) == 3
    for row in found:
        assert isinstance(row, Bad) and row.where.startswith("owner/name, ") and "id holds '" in row.why


def test_an_empty_hub_data_set_has_no_units(hub: Callable[..., Hub]) -> None:
    hub({"text": []})
    assert not units("s", Source(path="owner/name", streaming=False))


def test_a_hub_data_set_that_cannot_be_opened_is_refused(hub: Callable[..., Hub]) -> None:
    def fails(streaming: bool) -> None:
        raise ConnectionError("no route to host")

    hub(fails)
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "no route to host" in message


def generated() -> Iterator[dict[str, str]]:
    yield {"text": "one"}
    raise ConnectionError("reset by peer")


def test_a_hub_data_set_that_breaks_off_is_refused(hub: Callable[..., Hub]) -> None:
    hub(lambda streaming: datasets.IterableDataset.from_generator(generated))
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "reset by peer" in message and "again" in message


def test_a_hub_column_that_only_rows_tell_of_is_named(hub: Callable[..., Hub]) -> None:
    hub(lambda streaming: datasets.IterableDataset.from_generator(lambda: iter([{"text": "one"}, {"text": "two"}])))
    found = rows(Source(path="owner/name", text="body"))
    assert [row.where for row in found if isinstance(row, Bad)] == [
        "owner/name, shard 0, row 1",
        "owner/name, shard 0, row 2",
    ]
    assert all(isinstance(row, Bad) and "no column body; it has text" in row.why for row in found)
