"""Plain text: blocks between blank lines, and the place of a byte that is not UTF-8."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.recipe import Source
from text_files import read, the_unreadable, written

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


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("split", ["file", "blank-lines"])
def test_the_line_and_byte_are_right_behind_a_byte_order_mark(
    tmp_path: Path, mark: bytes, split: Any
) -> None:
    path = written(tmp_path / "a.txt", mark + b"a\nb\n\xe9\nc\n")
    bad = the_unreadable(Source(path=str(path), txt_documents=split))
    assert bad.where == f"{path}:3" and "0xe9" in bad.why
