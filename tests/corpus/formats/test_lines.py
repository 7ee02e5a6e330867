"""Text files, plain and compressed: wherever parts begin, each document comes once and in order."""

import bz2
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.corpus import sources
from sqzb.corpus.formats import lines, txt
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.sources import units
from sqzb.recipe import Source
from text_files import TEXTS, json_lines, pages, read, rows, the_unreadable, written


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zst,
    ".bz2": bz2.compress,
}


# Plain and compressed


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
    tmp_path: Path,
    name: str,
    content: bytes,
    options: dict[str, Any],
    expected: list[str],
    end: str,
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


# Division


line = st.text("ab. é", min_size=1).filter(lambda text: text.strip(" ") != "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


def divided(
    content: bytes, name: str, unit_bytes: int, folder: Path, **options: Any
) -> list[str | UnreadableDocument]:
    source = Source(path=str(written(folder / name, content)), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "UNIT_BYTES", unit_bytes)
        found = units("s", source)
        assert found == units("s", source)
        ends = [(part.start, part.end) for unit in found for part in unit.parts]
        assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]
        assert (ends[0][0], ends[-1][1]) == (0, len(content)) and sum(
            unit.size for unit in found
        ) == len(content)
        assert all(unit.size <= unit_bytes for unit in found)
        return rows(source)


ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n \n", "\n\n\n\n"])


text_bytes = st.lists(st.tuples(line, ends), min_size=1, max_size=12).map(
    lambda some: "".join(text + end for text, end in some).encode()
)


chips = st.sampled_from(
    [b"\n", b"\r\n", b" ", b"a", "é".encode(), b"\xff", b"{", b'{"text": "b"}\n', b"\xef\xbb\xbf"]
)


wiki_chips = st.sampled_from(
    [b"\n", b"<doc >\n", b"</doc>\n", b"text\n", b"\xff\n", b"a", b"<doc ", b"\n\n"]
)


plenty = settings(max_examples=scaled(50), suppress_health_check=list(HealthCheck))


def of_chips(chip: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(chip, min_size=1, max_size=25).map(b"".join)


@plenty
@given(st.data(), st.integers(1, 200) | st.integers(1, 12))
@pytest.mark.parametrize("name", ["a.jsonl", "blocks.txt", "wiki_00"])
def test_whole_and_divided_are_the_same(
    folder: Path, name: str, data: st.DataObject, unit_bytes: int
) -> None:
    """Documents and locations are the same wherever a part starts: in a line, character or page."""
    texts = data.draw(st.lists(line, min_size=1, max_size=12))
    valid = {
        "a.jsonl": json_lines(texts),
        "blocks.txt": data.draw(text_bytes),
        "wiki_00": pages(texts),
    }[name]
    content = data.draw(st.just(valid) | of_chips(wiki_chips if name == "wiki_00" else chips))
    whole = divided(content, name, 2**20, folder, txt_documents="blank-lines")
    assert divided(content, name, unit_bytes, folder, txt_documents="blank-lines") == whole
    if content == valid and name != "blocks.txt":
        assert [row.strip("\n") if isinstance(row, str) else row for row in whole] == texts


@plenty
@given(of_chips(chips), st.integers(1, 200) | st.integers(1, 12))
def test_divided_sentences_are_none_lost_or_doubled(
    folder: Path, content: bytes, unit_bytes: int
) -> None:
    """Where a part ends a document may end early."""

    def said(found: list[str | UnreadableDocument]) -> list[str | UnreadableDocument]:
        bad: list[str | UnreadableDocument] = [
            row for row in found if isinstance(row, UnreadableDocument)
        ]
        return bad + [
            one for row in found if isinstance(row, str) for one in row.split("\n") if one.strip()
        ]

    whole = divided(content, "said.txt", 2**20, folder, sentences_per_document=2)
    assert said(divided(content, "said.txt", unit_bytes, folder, sentences_per_document=2)) == said(
        whole
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "wiki_00"])
def test_a_long_line_is_not_read_by_every_part(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file without line endings, or without blank lines, is not read once for each part."""
    done = 0

    class Counted(io.BufferedReader):
        def __init__(self, path: str) -> None:
            super().__init__(io.FileIO(path))

        def readline(self, most: int | None = -1) -> bytes:
            nonlocal done
            raw = super().readline(most)
            done += len(raw)
            return raw

    monkeypatch.setattr(lines, "open_text", Counted)
    for content in (b"a" * 2**24, (b"a" * 99 + b"\n") * 2**14):
        monkeypatch.setattr(sources, "UNIT_BYTES", len(content) // 16)
        done = 0
        rows(Source(path=str(written(tmp_path / name, content)), txt_documents="blank-lines"))
        assert done < 3 * len(content)


# Unreadable text


def test_text_that_is_not_utf8_is_named_in_its_place(tmp_path: Path) -> None:
    latin = "caf\u00e9".encode("latin1")
    content = b'{"text": "one"}\n{"text": "%s"}\n{"text": "two"}\n' % latin
    for name, around in [("a.jsonl", ["one", "two"]), ("a.txt", [])]:
        path = written(tmp_path / name, content)
        found = rows(Source(path=str(path)))
        [bad] = [row for row in found if isinstance(row, UnreadableDocument)]
        assert bad.where == f"{path}:2" and "is not UTF-8" in bad.why and "0xe9" in bad.why
        assert found == [*around[:1], bad, *around[1:]]
        assert "iconv -f WINDOWS-1252" in bad.why


def test_a_text_file_of_windows_names_its_encoding(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "Ein Satz.\nNoch einer.\n".encode("utf-16"))
    [bad] = rows(Source(path=str(path)))
    assert isinstance(bad, UnreadableDocument) and "iconv -f UTF-16 -t UTF-8" in bad.why


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("name", ["a.jsonl", "blocks.txt", "one.txt", "wiki_00", "wiki_01"])
def test_what_is_too_long_is_no_document(
    tmp_path: Path, name: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST_DOCUMENT", 100)
    monkeypatch.setattr(txt, "LONGEST_DOCUMENT", 100)
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
    found = rows(
        Source(path=str(path), txt_documents="file" if name == "one.txt" else "blank-lines")
    )
    kept = [row.strip() if isinstance(row, str) else "bad" for row in found]
    assert kept == (
        ["bad"] if name == "one.txt" else ["one", "bad", "two", "bad", "three", "bad", "four"]
    )
    assert all(
        "is over 0 MiB long" in row.why and str(path) in row.where
        for row in found
        if isinstance(row, UnreadableDocument)
    )


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
def test_what_is_not_compressed_as_its_name_says_is_named(
    tmp_path: Path, name: str, split: Any
) -> None:
    path = written(tmp_path / name, json_lines(TEXTS))
    bad = the_unreadable(Source(path=str(path), txt_documents=split))
    assert str(path) in bad.where and "cannot be read" in bad.why
