"""Predictions by name, and the tables of what a model gets wrong, for every kind of label."""

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sqzb import console
from sqzb.data.dataset import Classes, Example, Kind, Labels, Number, Tags
from sqzb.finetuning.encode import Encoded, Words
from sqzb.finetuning.mistakes import _print_confusion, by_name, find_mistakes, print_mistakes

CLASSES, SEVERAL = Classes(("no", "yes")), Labels(("x", "y"))
TAGS, NUMBER = Tags(("O", "B-X", "I-X")), Number(0, 100)
WORDS = Words(np.array([0, 3, 4]), np.array([1, 2, 3, 1]))


def sure(rows: list[Any]) -> Any:
    return np.array(rows, np.float32)


# By kind: labels, logits, names of labels and predictions, figures of recall, row of the mistake.
CASES: list[tuple[Kind, Any, Any, list[Any], list[Any], dict[str, float], int]] = [
    (CLASSES, np.array([1, 0]), sure([[0, 9], [0, 9]]), ["yes", "no"], ["yes"] * 2, {"no": 0}, 1),
    (
        SEVERAL,
        sure([[1, 0], [1, 1]]),
        sure([[9, -9], [-9, 9]]),
        [["x"], ["x", "y"]],
        [["x"], ["y"]],
        {"x": 0.5, "y": 1},
        1,
    ),
    (
        TAGS,
        np.array([1, 2, 0, 1]),
        sure([[0, 9, 0], [0, 0, 9], [9, 0, 0], [9, 0, 0]]),
        [["B-X", "I-X", "O"], ["B-X"]],
        [["B-X", "I-X", "O"], ["O"]],
        {"X": 0.5},
        1,
    ),
    (NUMBER, sure([50, 7]), sure([[50], [99]]), [50.0, 7.0], [50.0, 99.0], {}, 1),
]


@pytest.mark.parametrize(("kind", "labels", "logits", "true", "given", "recalls", "wrong"), CASES)
def test_mistakes_are_named(
    kind: Kind,
    labels: Any,
    logits: Any,
    true: list[Any],
    given: list[Any],
    recalls: dict[str, float],
    wrong: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = WORDS if kind is TAGS else None
    encoded = Encoded([[2, 3]] * 2, [[0, 0]] * 2, labels, 0, words)
    examples = [
        Example("one two three", None, None, 0, ("one", "two", "three")),
        Example("four", None, None, 1, ("four",)),
    ]
    if kind is not TAGS:
        examples = [example._replace(words=None) for example in examples]
    assert by_name(kind, encoded.labels, encoded) == true
    found = find_mistakes(kind, examples, encoded, logits, None)
    assert [mistake["row"] for mistake in found["mistakes"]] == [wrong]
    assert found["mistakes"][0]["label"] == true[wrong]
    assert found["mistakes"][0]["prediction"] == given[wrong]
    for name, recall in recalls.items():
        assert found["by_label"][name]["recall"] == recall
    assert ("by_label" in found) == (kind is not NUMBER)
    print_mistakes(kind, "validation", found)
    printed = capsys.readouterr().out
    assert "four" in printed
    if kind is TAGS:
        assert "four/B-X" in printed and "four/O" in printed
        assert "one/" not in printed


def test_long_names_of_classes_are_numbered_in_the_header(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", Console(width=80))
    kind = Classes(tuple(f"department of {name}" for name in ("sales", "law", "travel")))
    _print_confusion(kind, "validation", np.full((3, 3), 12_345))
    shown = capsys.readouterr().out
    assert "3: department of travel" in shown and shown.count("12,345") == 9
    assert "…" not in shown
