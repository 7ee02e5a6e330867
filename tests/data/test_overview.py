"""Figures of own data that a person looks at before training."""

from pathlib import Path

from sqzb.data.dataset import Example
from sqzb.data.overview import concerns, label_rows, overview, sentences, shown_label, split_rows
from sqzb.data.own import OwnData
from table_files import Columns, own, table_file


def opened(data: OwnData) -> dict[str, list[Example]]:
    names = (*data.labelled_splits, *data.test_splits)
    return {name: data.read(name).examples for name in names}


def test_classes(tmp_path: Path) -> None:
    train = table_file(
        tmp_path / "train.csv",
        {"text": ["a", "a", "a", " ", "b\nc" * 50], "label": ["x", "x", "y", "y", "z"]},
    )
    validation = table_file(tmp_path / "dev.csv", {"text": ["a", "q"], "label": ["x", "y"]})
    test = table_file(tmp_path / "test.csv", {"text": ["b"]})
    data = own(train, validation=(validation,), test=(test,), label="label")
    view = overview(data, opened(data))

    figures = view.splits["train"]
    assert (figures.examples, figures.empty, figures.duplicates) == (5, 1, 2)
    assert (figures.contradictory, figures.in_train) == (1, 0)
    assert figures.labels == {0: 2, 1: 2, 2: 1}
    assert (view.splits["validation"].in_train, view.held_out) == (1, 0.0)

    said = sentences(view)
    assert said[:3] == [
        "text: text (recognised; change it with --text)",
        "label: label",
        "kind: one class of each text, 3 names (recognised; change it with --kind)",
    ]
    assert said[3:] == ["1. a → x", "2. a → x", "3. a → y"]
    assert split_rows(view)[1] == [
        ("train", "5", "1", "2", ""),
        ("validation", "2", "0", "0", "1"),
        ("test", "1", "0", "0", "0"),
    ]
    assert label_rows(view) == (
        ("label", "train", "validation"),
        [
            ("x", "2 (40.0%)", "1 (50.0%)"),
            ("y", "2 (40.0%)", "1 (50.0%)"),
            ("z", "1 (20.0%)", "0 (0.0%)"),
        ],
    )
    assert concerns(view) == [
        "1 train example repeats the texts of an earlier example with another label.",
        "1 of 2 validation examples have the texts of training examples, so their score is too "
        "good.",
        "No validation example has the label 'z'.",
    ]


def test_numbers_and_pairs_with_a_held_out_share(tmp_path: Path) -> None:
    columns: Columns = {
        "sentence1": [f"first {row}" for row in range(10)],
        "sentence2": [f"second {row}" for row in range(10)],
        "score": [row / 2 for row in range(10)],
    }
    data = own(table_file(tmp_path / "a.jsonl", columns))
    view = overview(data, opened(data))
    said = sentences(view)
    assert said[3].startswith("validation: 10% of the training files")
    assert said[4].endswith(f"| {view.first[0].text_b} → {view.first[0].label:g}")
    header, rows = label_rows(view)
    assert header == ("split", "lowest", "mean", "highest")
    assert [row[0] for row in rows] == ["train", "validation"]
    assert concerns(view) == []


def test_several_labels_and_tags(tmp_path: Path) -> None:
    several: Columns = {"text": list("abcd"), "labels": [["x", "y"], ["x"], [], ["y", "x"]]}
    data = own(table_file(tmp_path / "a.jsonl", several), holdout=0.0)
    view = overview(data, opened(data))
    assert label_rows(view)[1] == [("x", "3 (75.0%)"), ("y", "2 (50.0%)")]
    assert [shown_label(data.kind, one.label) for one in view.first] == ["x, y", "x", "(none)"]

    tags: Columns = {"words": [["In", "Rome"], ["a"]], "tags": [["O", "B-LOC"], ["O"]]}
    data = own(table_file(tmp_path / "b.jsonl", tags), holdout=0.0)
    view = overview(data, opened(data))
    assert label_rows(view)[1] == [("B-LOC", "1 (33.3%)"), ("O", "2 (66.7%)")]
    assert sentences(view)[3] == "1. In Rome → O B-LOC"


def test_the_commonest_of_many_labels(tmp_path: Path) -> None:
    names = [f"name{row % 30}" for row in range(300)] + ["name29"]
    columns = {"text": [f"text {row}" for row in range(301)], "label": names}
    data = own(table_file(tmp_path / "a.csv", columns), holdout=0.0)
    rows = label_rows(overview(data, opened(data)))[1]
    assert (len(rows), rows[0]) == (20, ("name29", "11 (3.7%)"))
