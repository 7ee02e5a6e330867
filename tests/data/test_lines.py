"""Examples in a text file, one a line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.lines import check_sentences, read_lines
from sqzb.errors import UserError


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n\t", exclude_categories=["Cs"])), max_size=9
    )
)
def test_every_line_has_its_place(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "lines.txt"
    file.write_bytes("".join(f"{line}\n" for line in lines).encode())
    without_mark = [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else []
    assert read_lines(file) == [(line,) if line.strip() else () for line in without_mark]


def test_what_is_no_example_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tabs.txt").write_text("a\tb\n\na\tb\tc\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, said in (
        ("absent", "cannot be read"),
        ("latin", "cannot be read"),
        ("tabs", ":3 has 2 tabs"),
    ):
        with pytest.raises(UserError, match=f"{name}.txt ?{said}"):
            read_lines(tmp_path / f"{name}.txt")
    rows = [("a",), (), ("a", "b")]
    with pytest.raises(
        UserError, match=r"f\.txt:3: cola takes one sentence, and here is two sentences"
    ):
        check_sentences("cola", 1, rows, Path("f.txt"))
    with pytest.raises(UserError, match=r"^mrpc takes two sentences, and here is one sentence"):
        check_sentences("mrpc", 2, rows)
    check_sentences("mrpc", 2, rows[1:])


def test_a_lone_carriage_return_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"one\rtwo\tthree\r\nfour\n")
    assert read_lines(tmp_path / "lines.txt") == [("one\rtwo", "three"), ("four",)]
