"""The kind of labels: recognised or given, whatever the format and the order of the rows."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.data.dataset import Classes, Labels, Number, Tags
from sqzb.data.labels import sorted_names
from table_files import own, own_refusal, table_file, written

KINDS: list[tuple[list[Any], object]] = [
    ([0.5, 1.5], Number(0.5, 1.5, 1.0, 0.5)),
    (["b", "a", "b"], Classes(("a", "b"))),
    (["10", "9", "-1"], Classes(("-1", "9", "10"))),
    ([3, 1, 2], Classes(("1", "2", "3"))),
    ([True, False], Classes(("False", "True"))),
    (["1.0", "0.0"], Classes(("0", "1"))),
    ([1.0, 0.0], Classes(("0", "1"))),
    (["007", "7"], Classes(("007", "7"))),
    (["Class 10", "class 9", "class 10"], Classes(("class 9", "Class 10", "class 10"))),
    ([" a ", "b"], Classes(("a", "b"))),
    ([["a"], ["b", "a"]], Labels(("a", "b"))),
]


def columns(labels: Sequence[Any], text: str = "text") -> dict[str, Sequence[Any]]:
    return {"text": [f"{text} {row}" for row in range(len(labels))], "label": labels}


@pytest.mark.parametrize(("labels", "kind"), KINDS)
def test_recognised(tmp_path: Path, labels: list[Any], kind: object) -> None:
    path = table_file(tmp_path / "a.jsonl", columns(labels))
    assert own(path, holdout=0.0).kind == kind
    assert own(path, holdout=0.0).known.recognised == ("text", "label", "kind")


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, unique=True),
    st.randoms(use_true_random=False),
)
@settings(max_examples=scaled(10))
def test_numbers_have_their_mean_and_spread(
    tmp_path_factory: pytest.TempPathFactory, labels: list[float], random: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    mixed = random.sample(labels, len(labels))
    kinds = []
    for name, values in (("a.csv", labels), ("a.jsonl", mixed)):
        path = table_file(folder / name, columns(values))
        kinds.append(own(path, kind="number", holdout=0.0).kind)
    assert kinds[0] == kinds[1]
    kind = kinds[0]
    assert isinstance(kind, Number)
    assert (kind.low, kind.high) == (min(labels), max(labels))
    assert np.isclose(kind.mean, np.mean(labels))
    assert np.isclose(kind.std, np.std(labels))


def test_many_different_numbers_are_quantities(tmp_path: Path) -> None:
    whole = [str(3 * row) for row in range(30)] * 2
    assert isinstance(own(table_file(tmp_path / "a.csv", columns(whole))).kind, Number)
    parts = [f"{row}.5" for row in range(30)]
    assert isinstance(own(table_file(tmp_path / "a.csv", columns(parts))).kind, Number)
    assert isinstance(own(table_file(tmp_path / "a.csv", columns(parts[:3]))).kind, Number)


def test_one_value_overrules_what_is_recognised(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.csv", columns(["1", "2", "3", "2"]))
    assert own(path, kind="number", holdout=0.0).kind == Number(1.0, 3.0, 2.0, math.sqrt(0.5))
    assert own(path, kind="labels", holdout=0.0).kind == Labels(("1", "2", "3"))
    wide = table_file(tmp_path / "b.csv", columns([str(row) for row in range(30)] * 2))
    assert own(wide, kind="classes").kind == Classes(tuple(str(row) for row in range(30)))
    path = table_file(tmp_path / "c.csv", {"text": ["In Rome", "a b"], "label": ["O B", "O O"]})
    data = own(path, kind="tokens", text=("text",), holdout=0.0)
    assert data.kind == Tags(("B", "O"))
    assert data.read("train").examples[0].words == ("In", "Rome")


def test_names_and_numbers_in_one_column_are_told(tmp_path: Path) -> None:
    def warnings(labels: Sequence[Any], **options: Any) -> list[str]:
        path = table_file(tmp_path / "a.csv", columns(labels))
        return own(path, holdout=0.0, **options).read("train").warnings

    mixed = ["1", "good", "2", "bad", "3"]
    (warning,) = warnings(mixed)
    assert re.search(
        r"numbers, as in \S*a\.csv:2, column 'label' \('1'\), .* words, as in \S*:3, .*'good'",
        warning,
    )
    assert "--kind number" in warning and "--kind classes ends this warning" in warning
    assert warnings(mixed, kind="classes") == []
    for labels in (["good", "bad"], ["1", "2"], ["007", "7"], ["007", "x"], ["1.5", "2.5"]):
        assert warnings(labels) == []


def test_separated_labels(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.csv", columns(["b;a", "", "a; c ;", "a"]))
    data = own(path, kind="labels", separator=";", holdout=0.0)
    assert data.kind == Labels(("a", "b", "c"))
    labels = [example.label for example in data.read("train").examples]
    assert labels == [(0, 1), (), (0, 2), (0,)]


@given(st.sets(st.text(max_size=4), min_size=1), st.randoms(use_true_random=False))
def test_names_have_one_order(names: set[str], random: Any) -> None:
    mixed = random.sample(sorted(names), len(names))
    assert sorted_names(set(mixed)) == sorted_names(names)
    assert set(sorted_names(names)) == names or all(
        re.fullmatch(r"[+-]?\d+(\.0+)?", n) for n in names
    )


IDS = [str(row) for row in range(100, 1100)]
REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    # Labels that are missing or mixed.
    (["x", None, "y"], {}, r"a\.jsonl:2, column 'label': the label is missing"),
    (["x", "y", " "], {}, r"a\.jsonl:3, column 'label': the label is missing"),
    (["x", "nan", "y"], {}, r"a\.jsonl:2, column 'label': the label is missing"),
    ([1.5, float("nan")], {}, r"a\.jsonl:2, column 'label': the label is missing"),
    ([["x"], None], {}, r"a\.jsonl:2, column 'label': the label is missing .* empty list"),
    ([["x"], ["y", None]], {}, r"a\.jsonl:2, column 'label': the label is missing"),
    (
        [1, 2, "three"],
        {},
        r"a\.jsonl:3, column 'label': the label is a text \('three'\), "
        r"and .*:1, column 'label' is a number \(1\)",
    ),
    ([["x"], "y"], {}, r"a\.jsonl:2, column 'label': the label is a text .* is a list"),
    ([{"a": 1}, {"a": 2}], {}, r"a\.jsonl:1, column 'label': the label is a dict"),
    # Labels that teach nothing.
    (["x", "x"], {}, r"a\.jsonl, column 'label': every label is 'x'"),
    ([1.5, 1.5], {}, r"a\.jsonl, column 'label': every label is 1\.5"),
    ([1e9, 1e9 + 1e-3], {"kind": "number"}, r"a\.jsonl, column 'label': every label is 1e\+09"),
    ([2, 2], {"kind": "number"}, r"a\.jsonl, column 'label': every label is 2"),
    ([[], []], {}, r"a\.jsonl, column 'label': no example has a label"),
    # Ids in place of labels.
    (IDS, {}, r"whole numbers with 1,000 values, each in one row, as in a column of ids"),
    ([f"id{one}" for one in IDS], {}, "1,000 values in 1,000 rows .*ids"),
    ([f"id{one}" for one in IDS], {"kind": "classes"}, "1,000 values in 1,000 rows .*ids"),
    ([f"id{one}" for one in range(1001)] * 3, {}, "1,001 values .*, or give data.kind=classes"),
    (
        [str(row) for row in range(30)] * 2,
        {},
        "30 values without a gap, .*kind=classes or .*number",
    ),
    # Numbers that are none.
    (
        ["1,5", "2", "3,25"],
        {},
        r"a\.jsonl:1, column 'label': the label '1,5' has a comma.*such as 3\.5",
    ),
    (
        ["1.5", "2,5"],
        {"kind": "number"},
        r"a\.jsonl:2, column 'label': the label '2,5' has a comma",
    ),
    (
        ["1.5", "high"],
        {"kind": "number"},
        r"a\.jsonl:2, column 'label': the label is a text \('high'\) and not a",
    ),
    (
        [1.5, float("inf")],
        {"kind": "number"},
        r"a\.jsonl:2, column 'label': the label inf is not from -1e\+30 to 1e\+30",
    ),
    ([True, False], {"kind": "number"}, "a truth value"),
    (
        [f"{row}.5" for row in range(40)] + ["n/a"],
        {},
        r"a\.jsonl:41, column 'label': the label 'n/a' is no number",
    ),
    # Labels of another kind than the given.
    ([["x"], ["y"]], {"kind": "classes"}, r"a\.jsonl:1, column 'label': the label is a list"),
    (
        [1, 2],
        {"kind": "labels"},
        r"a\.jsonl:1, column 'label': the labels are a number \(1\) and neither a list",
    ),
    (["['x', 'y']", "[]"], {"kind": "labels"}, r"a\.jsonl:1, .* a list that was written as text"),
    ([["O", "O"], ["O", "O"]], {"kind": "tokens"}, "every label is 'O'"),
    ([1, 2], {"kind": "tokens"}, "the tags are a number"),
]


@pytest.mark.parametrize(("labels", "options", "message"), REFUSED)
def test_refusals(tmp_path: Path, labels: list[Any], options: dict[str, Any], message: str) -> None:
    path = table_file(tmp_path / "a.jsonl", columns(labels))
    assert re.search(message, own_refusal(path, **options))


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        (
            '{"words": ["a", "b"], "tags": ["O"]}',
            {},
            ":2, column 'tags': there are 2 words and 1 tag",
        ),
        (
            '{"words": ["a"], "tags": ["O", "O"]}',
            {},
            ":2, column 'tags': there are 1 word and 2 tags",
        ),
        ('{"words": "a b", "tags": ["O", "O"]}', {}, ":2: 'words' holds a text .* list of words"),
        ('{"words": ["a", 1], "tags": ["O", "O"]}', {}, ":2: a word in 'words' is a number"),
        ('{"words": ["a"], "tags": [null]}', {}, ":2, column 'tags': the label is missing"),
        ('{"words": ["a"], "tags": null}', {}, ":2, column 'tags': the label is missing"),
        (
            '{"words": ["a"], "tags": ["O"]}',
            {"kind": "labels"},
            ":1, column 'tags': the text is a list of words",
        ),
    ],
)
def test_words_and_tags(tmp_path: Path, line: str, options: dict[str, Any], message: str) -> None:
    first = '{"words": ["x", "y"], "tags": ["O", "B-z"]}\n'
    assert re.search(message, own_refusal(written(tmp_path / "a.jsonl", first + line), **options))
