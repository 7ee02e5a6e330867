"""CoNLL: sentences of words and tags, whatever divides the columns."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from table_files import refusal, rows, values, written

WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n#\0"), min_size=1
)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-x"])), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@given(SENTENCES, st.sampled_from([" ", "\t", "  "]), st.sampled_from(["\n", "\r\n"]))
def test_sentences(
    tmp_path_factory: pytest.TempPathFactory,
    sentences: list[list[tuple[str, str]]],
    between: str,
    end: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.conll"
    content, starts = end, []
    for sentence in sentences:
        starts.append(content.count("\n") + 1)
        content += "".join(f"{word}{between}_{between}{tag}{end}" for word, tag in sentence) + end
    path.write_bytes(content.encode())
    found = [list(zip(row["words"], row["tags"], strict=True)) for row in values(path)]
    assert found == sentences
    assert [row.number for row in rows(path)] == starts


def test_documents_and_comments_are_passed_over(tmp_path: Path) -> None:
    lines = "-DOCSTART- -X- O O\n\n# id 7\n# O\nIn O\n\n# id 8 a\nParis B-LOC\n-DOCSTART- O\nx O"
    assert values(written(tmp_path / "a.conll", lines)) == [
        {"words": ["#", "In"], "tags": ["O", "O"]},
        {"words": ["Paris"], "tags": ["B-LOC"]},
        {"words": ["x"], "tags": ["O"]},
    ]


def test_words_between_tabs_may_have_spaces(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bio", "New York\tB-LOC\nx\u00a0y\tO\n")
    assert values(path) == [{"words": ["New York", "x\u00a0y"], "tags": ["B-LOC", "O"]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.iob has no words"),
        ("\n# a\n-DOCSTART-\n", "a.iob has no words"),
        ("\nParis\n", "a.iob:2: there is a word without a tag"),
        ("\nIn O\nParis\n", "a.iob:3: the line has 1 column, and line 2 has 2"),
        ("In O\n# a b\n", "a.iob:2: the line has 3 columns, and line 1 has 2"),
    ],
)
def test_refusals(tmp_path: Path, content: str, message: str) -> None:
    assert re.search(message, refusal(written(tmp_path / "a.iob", content)))
