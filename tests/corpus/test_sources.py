"""Sources: their files are found, recognised and put together to units."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzb.corpus import sources
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.sources import about_files, local_files, units
from sqzb.recipe import Source
from text_files import TEXTS, json_lines, parquet, read, refusal, rows, written

Hub = Callable[..., Any]


def jsonl(path: Path, texts: list[str] = TEXTS, column: str = "text") -> Path:
    return written(path, json_lines(texts, column))


def test_small_files_are_put_together_and_large_ones_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert [unit.size for unit in found[:3]] == [900, 900, 300] and {
        unit.kind for unit in found[3:]
    } == {"jsonl"}
    assert len(found) - 3 == -(-large.stat().st_size // 1000)
    assert (
        read(Source(path=str(tmp_path))) == [str(number) * 300 for number in range(7)] + TEXTS * 10
    )


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
    assert [[one for one in document.split("\n") if one] for document in found] == [
        said[:3],
        said[3:6],
        said[6:],
    ]


def test_bad_rows_among_sentences_stay_bad(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"One.\n\xff\nTwo.\nThree.\n")
    [bad, *found] = rows(Source(path=str(path), sentences_per_document=2))
    assert (
        isinstance(bad, UnreadableDocument)
        and bad.where == f"{path}:2"
        and found == ["One.\n\n\nTwo.\n", "Three.\n"]
    )


# Paths


def test_folders_and_globs_stand_for_every_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "deep/a.txt", "deep/er/c.txt", "deep/er/wiki_07"):
        written(
            tmp_path / name, b"<doc >\nw\n</doc>" if "wiki" in name else Path(name).stem.encode()
        )
    (tmp_path / "deep" / "notes.md").write_text("not text")
    assert "notes.md" in refusal(
        Source(path=str(tmp_path / "**"))
    )  # which names it, and it cannot be read
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


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.parquet.gz", "a.gz", "a", "wiki_", "wiki_0.csv", "a.txt.xz"]
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b"x")
    assert f"{path} has an unknown format" in refusal(Source(path=str(path)))


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this disk takes no such name")
    assert r"caf\udce9.txt" in refusal(Source(path=str(tmp_path)))


def test_a_local_path_goes_before_the_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = hub({"text": ["hub"]})
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "owner" / "name", b"no kind")
    assert "owner/name has an unknown format" in refusal(Source(path="owner/name"))
    written(tmp_path / "owner" / "name.txt", b"local")
    assert read(Source(path="owner/name.txt")) == ["local"]
    assert not made.loads


# What a folder holds


def test_links_are_followed_and_the_listing_says_what_is_passed_over(tmp_path: Path) -> None:
    folder, other = tmp_path / "s", tmp_path / "other"
    jsonl(folder / "a.JSONL", ["a"])
    jsonl(folder / "x" / "b.jsonl", ["b"])
    jsonl(other / "c.jsonl", ["c"])
    written(folder / "d.TXT.GZ", gzip.compress(b"d"))
    written(folder / "notes.md", b"no text")
    jsonl(folder / ".ipynb_checkpoints" / "a-checkpoint.jsonl", ["hidden"])
    (folder / "linked").symlink_to("../other")
    (folder / "again").symlink_to("x")
    (folder / "loop").symlink_to(".")
    source = Source(path=str(folder))
    assert read(source) == ["a", "d", "c", "b"]
    about = " ".join(about_files("s", source, local_files(source)))
    assert about.startswith("Source s: 4 files, ") and "The txt file is one document." in about
    for passed in (
        f"{folder}/.ipynb_checkpoints (hidden)",
        f"{folder}/again (a link to {folder}/x)",
        f"{folder}/loop (a link to {folder})",
        f"{folder}/notes.md (another format)",
    ):
        assert passed in about
    assert read(Source(path=f"{folder}/**/*.jsonl")) == ["c", "b"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ["a"])
    (tmp_path / "b.jsonl").symlink_to("gone.jsonl")
    for path in (tmp_path, tmp_path / "**"):
        assert f"{tmp_path}/b.jsonl is a link to gone.jsonl" in refusal(Source(path=str(path)))


def test_a_file_and_a_folder_without_rights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced, because root may read everything."""
    jsonl(tmp_path / "a.jsonl", ["a"])
    locked = tmp_path / "locked"
    jsonl(locked / "b.jsonl", ["b"])
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        for path in (str(tmp_path), f"{tmp_path}/**/*.jsonl"):
            said = refusal(Source(path=path))
            assert f"folder {locked} cannot be read (Permission denied)" in said
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).parent != locked)
    assert f"{locked}/b.jsonl cannot be read" in refusal(Source(path=str(tmp_path)))


def test_a_damaged_rest_counts_with_its_documents(tmp_path: Path) -> None:
    whole = gzip.compress(json_lines([f"{n} {os.urandom(40).hex()}" for n in range(600)]))
    bad = the_last(Source(path=str(written(tmp_path / "a.jsonl.gz", whole[: len(whole) // 2]))))
    assert bad.documents > 100 and "documents are lost" in bad.why
    bad = the_last(Source(path=str(written(tmp_path / "b.parquet", b"PAR1" + b"x" * 60_000))))
    assert bad.documents == 600
    several = parquet(tmp_path / "c.parquet", [1] * 50, row_group_size=10)
    assert the_last(Source(path=str(several))).documents == 50


def the_last(source: Source) -> UnreadableDocument:
    *_, last = rows(source)
    assert isinstance(last, UnreadableDocument)
    return last
