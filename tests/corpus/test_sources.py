"""Sources: what they are cut into, however that is done, gives every document once, in order."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzb.corpus import readers, sources
from sqzb.corpus.readers import UnreadableDocument
from sqzb.corpus.sources import documents, units
from sqzb.recipe import Source
from text_files import TEXTS, json_lines, pages, parquet, read, refusal, rows, written

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Hub = Callable[..., Any]


def jsonl(path: Path, texts: list[str] = TEXTS, column: str = "text") -> Path:
    return written(path, json_lines(texts, column))


# Division


line = st.text("ab. é", min_size=1).filter(lambda text: text.strip(" ") != "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


def divided(content: bytes, name: str, unit_bytes: int, folder: Path, **options: Any) -> list[str | UnreadableDocument]:
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

    def said(found: list[str | UnreadableDocument]) -> list[str | UnreadableDocument]:
        bad: list[str | UnreadableDocument] = [row for row in found if isinstance(row, UnreadableDocument)]
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


# Sentences without boundaries


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
    assert (
        isinstance(bad, UnreadableDocument) and bad.where == f"{path}:2" and found == ["One.\n\n\nTwo.\n", "Three.\n"]
    )


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


# The Hub


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_source_is_read_at_one_commit(hub: Hub, streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNIT_BYTES", 100)
    made = hub({"body": [*TEXTS, None], "id": list(range(11))}, commit=COMMIT)
    source = Source(
        path="owner/name", text="body", config="20231101.en", revision="main", split="test", streaming=streaming
    )
    found = units("s", source)
    assert {unit.revision for unit in found} == {COMMIT}
    bounds = [part[1:] for unit in found for part in unit.parts]
    assert len(bounds) >= 3 and [end for _, end in bounds[:-1]] == [start for start, _ in bounds[1:]]
    assert [row for unit in found for row in documents(unit, source)] == [*TEXTS, ""]
    loads = [("owner/name", "20231101.en", revision, "test") for revision in ("main", *[COMMIT] * len(found))]
    assert made.loads == loads


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_commit_that_is_read_is_named(hub: Hub, revision: str | None) -> None:
    hub({"text": TEXTS}, commit=COMMIT)
    assert {unit.revision for unit in units("s", Source(path="owner/name", revision=revision))} == {COMMIT}


@pytest.mark.parametrize("streaming", [True, False])
def test_another_commit_than_the_named_one_is_refused(hub: Hub, streaming: bool) -> None:
    hub({"text": TEXTS}, commit=COMMIT)
    message = refusal(Source(path="owner/name", revision=COMMIT[::-1], streaming=streaming))
    assert COMMIT in message and COMMIT[::-1] in message and "Connect to the network" in message


def test_a_hub_source_gathers_sentences(hub: Hub) -> None:
    hub({"text": ["A.", "B.", "C."]}, shards=1)
    assert read(Source(path="owner/name", sentences_per_document=2)) == ["A.\n\nB.", "C."]


def test_a_local_path_goes_before_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = hub({"text": ["hub"]})
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "owner" / "name", b"no kind")
    assert "owner/name is of no kind" in refusal(Source(path="owner/name"))
    written(tmp_path / "owner" / "name.txt", b"local")
    assert read(Source(path="owner/name.txt")) == ["local"]
    assert not made.loads


def test_an_empty_hub_data_set_has_no_units(hub: Hub) -> None:
    hub({"text": []})
    assert not units("s", Source(path="owner/name", streaming=False))
