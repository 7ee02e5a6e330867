"""Files by their ending, compressed or not, folders, globs and standard input."""

import contextlib
import hashlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.data.formats import FORMATS, open_table, tables
from sqzb.data.formats.common import Table
from sqzb.errors import UserError
from table_files import COMPRESSIONS, ENDINGS, refusal, table_file, values, written

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ROWS = {"text": ["a", "é"], "label": ["x", "y"]}


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
@settings(max_examples=scaled(15))
def test_every_format_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, pairs: Sequence[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    texts, labels = zip(*pairs, strict=True)
    expected = [{"text": text, "label": label} for text, label in pairs]
    for ending in ENDINGS:
        found = texts
        if ending == ".tsv":  # lines that are rows by themselves would be refused
            found = tuple(text.replace("\t", " ") for text in texts)
        columns = {"text": found, "label": labels, "id": ["0"] * len(texts)}
        path = table_file(folder / f"a{ending}", columns)
        rows = [{"text": row["text"], "label": row["label"]} for row in values(path)]
        assert [row["label"] for row in rows] == list(labels)
        assert [row["text"] for row in rows] == list(found)
        assert ending == ".tsv" or rows == expected


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("ending", [e for e in ENDINGS if e != ".parquet"])
def test_compressed_files(tmp_path: Path, ending: str, compression: str) -> None:
    plain = table_file(tmp_path / f"a{ending}", ROWS)
    packed = table_file(tmp_path / f"A{ending.upper()}{compression}".lower(), ROWS)
    assert values(packed) == values(plain)

    raw = Path(packed).read_bytes()
    Path(packed).write_bytes(raw[: len(raw) // 2])
    assert "cannot be read" in refusal(packed)


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])  # .bz2 is one block here
def test_damage_behind_the_first_rows(tmp_path: Path, compression: str) -> None:
    texts = [hashlib.sha256(bytes([row % 256, row // 256])).hexdigest() for row in range(5000)]
    packed = Path(table_file(tmp_path / f"a.csv{compression}", {"text": texts, "id": texts}))
    packed.write_bytes(packed.read_bytes()[:-20])
    assert re.search(r"a\.csv\S+ cannot be read further behind .*:\d+ \(", refusal(packed))


def paths(opened: list[Table], folder: Path) -> list[str]:
    return [str(Path(table.path).relative_to(folder)) for table in opened]


def test_folders_globs_and_several_files(tmp_path: Path) -> None:
    for name in ("b.csv", "deep/a.csv", "a.csv", "deep/.hidden.csv", "_SUCCESS", "README.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table_file(tmp_path / name, ROWS) if name.endswith("csv") else written(tmp_path / name, "x")
    assert paths(tables([str(tmp_path)]), tmp_path) == ["a.csv", "b.csv", "deep/a.csv"]
    assert paths(tables([f"{tmp_path}/*.csv"]), tmp_path) == ["a.csv", "b.csv"]
    given = [f"{tmp_path}/b.csv", f"{tmp_path}/deep/../b.csv", f"{tmp_path}/**/*.csv"]
    assert paths(tables(given), tmp_path) == ["b.csv", "a.csv", "deep/a.csv"]


def test_names_with_the_signs_of_globs_are_files(tmp_path: Path) -> None:
    path = table_file(tmp_path / "[a]*.csv", ROWS)
    assert [table.path for table in tables([path])] == [path]


def test_text_is_conll_where_words_have_tags(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "In O\n")
    assert open_table(path).columns == ("text",)
    assert open_table(path, tokens=True).columns == ("words", "tags")


def test_a_folder_follows_links_and_names_what_it_passes_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    for path in ("s/a.csv", "other/b.CSV", "s/.ipynb_checkpoints/a-checkpoint.csv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("text,label\na,b\n")
    (folder / "notes.md").touch()
    (folder / "linked").symlink_to("../other")
    (folder / "loop").symlink_to(".")
    assert paths(tables([str(folder)]), folder) == ["a.csv", "linked/b.CSV"]
    said = " ".join(capsys.readouterr().err.split())
    assert "2 files of " in said and "/notes.md (another format)" in said and "(hidden)" in said
    assert paths(tables([f"{folder}/**/*.csv"]), folder) == ["a.csv"]
    (folder / "gone.csv").symlink_to("nowhere.csv")
    with pytest.raises(UserError, match=r"gone\.csv is a link to nowhere\.csv"):
        tables([str(folder)])


def test_what_a_folder_may_not_be(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(UserError) as caught:
            tables([str(tmp_path)], option="--test")
        return str(caught.value)

    written(tmp_path / "notes.md", "x")
    assert "has no file that can be read; there is: 'notes.md'. Give with --test" in said()
    table_file(tmp_path / "train-0.csv", ROWS)
    table_file(tmp_path / "training.csv", ROWS)
    table_file(tmp_path / "test-0.csv", ROWS)
    assert "files of several splits: 'test-0.csv', 'train-0.csv', 'training.csv'" in said()
    table_file(tmp_path / "a.jsonl", ROWS)
    assert "files of several formats (.csv, .jsonl)" in said()


def test_files_that_are_not_there_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file, folder or glob .*a\.csv.* with --validation"):
        tables([f"{tmp_path}/a.csv"], option="--validation")
    with pytest.raises(UserError, match="no file, folder or glob"):
        tables(["a text in place of a name " * 99])
    with pytest.raises(UserError, match="A data set of the Hub is hub:owner/name"):
        tables(["owner/name"])
    for name in ("a.xlsx", "a", "a.gz", "a.parquet.gz"):
        assert "none of the endings that are known: .csv, .tsv" in refusal(
            written(tmp_path / name, "x")
        )
    (tmp_path / "b.csv").mkdir()
    assert "b.csv is a folder" in refusal(tmp_path / "b.csv")
    assert "c.csv cannot be read (No such file" in refusal(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("given_text", "rows"),
    [
        ('\n{"text": "é"}\n{"text": "b"}\n', [{"text": "é"}, {"text": "b"}]),
        ("é\n\nb\r\n", [{"text": "é"}, {"text": ""}, {"text": "b"}]),
        ("a\tb\n", [{"text_a": "a", "text_b": "b"}]),
    ],
)
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, given_text: str, rows: list[dict[str, str]]
) -> None:
    raw = io.BufferedReader(io.BytesIO(given_text.lstrip("\n").encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    assert values("-") == rows


def test_plain_lines_with_tabs_in_some(tmp_path: Path) -> None:
    assert "a.txt:2: the line has 1 text, and line 1 has 2" in refusal(
        written(tmp_path / "a.txt", "a\tb\nc\n")
    )
    assert "a.txt:1: the line has 2 tabs" in refusal(written(tmp_path / "a.txt", "a\tb\tc\n"))
    assert "a.txt is empty" in refusal(written(tmp_path / "a.txt", ""))


PARTS = [
    b"text,label",
    b"\n",
    b'"',
    b"\t",
    b";",
    b"\r",
    b"[",
    b"{",
    b'"a": 1}',
    b"\xff\xfe",
    b"\xe9",
]


@given(
    st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=9))), st.sampled_from([*FORMATS])
)
def test_any_content_has_rows_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(b"".join(parts))
    with contextlib.suppress(UserError):
        values(path)
