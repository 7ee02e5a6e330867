"""A user's own files: the same examples from every format, and each bad input with its line."""

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.data.dataset import Classes, Example, Tags
from sqzb.data.known import Known
from sqzb.data.own import OwnData, OwnFiles, data_set_name, metrics_of, open_own
from sqzb.errors import UserError
from table_files import ENDINGS, own, own_refusal, table_file, written

ROWS = 40
COLUMNS = {
    "text": [f"text {row}" for row in range(ROWS)],
    "label": [("no", "yes")[row % 4 == 0] for row in range(ROWS)],
}


def examples(data: OwnData, split: str = "train") -> list[Example]:
    return data.read(split).examples


def again(data: OwnData, **options: Any) -> OwnData:
    """The data set as a later process opens it."""
    known = Known.from_json(json.loads(json.dumps(data.known.to_json())))
    assert known == data.known
    files = OwnFiles(**{**vars(data.files), **options})
    return open_own(files, known)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t"), max_size=6)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["a", "b", "é, x"])), min_size=1))
@settings(max_examples=scaled(10))
def test_the_same_examples_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [*rows, ("first", "x", "a"), ("second", "y", "b")]
    first, second, labels = zip(*rows, strict=True)
    columns = {"one": first, "id": range(len(rows)), "two": second, "kind of": labels}
    packed = (".csv.gz", ".jsonl.zst")
    found = []
    for ending in (*ENDINGS, *packed):
        path = table_file(folder / f"rows{ending}", columns)
        data = own(path, text=("one", "two"), label="kind of", holdout=0.3)
        found.append((data.kind, data.name, examples(data), examples(data, "validation")))
    assert all(one == found[0] for one in found)
    assert sorted(found[0][2] + found[0][3], key=lambda one: one.row) == [
        Example(a, b, found[0][0].names.index(label), row) for row, (a, b, label) in enumerate(rows)
    ]


def test_a_share_is_held_out_and_stays_held_out(tmp_path: Path) -> None:
    data = own(table_file(tmp_path / "reviews.csv", COLUMNS))
    train, validation = examples(data), examples(data, "validation")
    assert (data.name, len(train), len(validation)) == ("reviews", 36, 4)
    assert Counter(one.label for one in validation) == {0: 3, 1: 1}
    assert (data.holds_out, data.labelled_splits) == (True, ("train", "validation"))

    later = again(data)
    assert (examples(later), examples(later, "validation")) == (train, validation)
    assert later.kind == data.kind
    assert not own(table_file(tmp_path / "a.csv", COLUMNS), holdout=0.0).validation_splits


def test_splits_from_files(tmp_path: Path) -> None:
    train = table_file(tmp_path / "train.csv", COLUMNS)
    more = table_file(tmp_path / "more.jsonl", {"label": ["no"], "x": [0], "text": ["é"]})
    validation = table_file(tmp_path / "dev.jsonl.xz", {"text": ["v"], "label": ["yes"]})
    test = table_file(tmp_path / "test.tsv", {"text": ["t"]})
    data = open_own(OwnFiles(train=(train, more), validation=(validation,), test=(test,)))
    assert (data.train_split, data.validation_splits) == ("train", ("validation",))
    assert data.test_splits == ("test",)
    assert examples(data)[-1] == Example("é", None, 0, ROWS)
    assert examples(data, "validation") == [Example("v", None, 1, 0)]
    assert examples(data, "test") == [Example("t", None, None, 0)]
    rows = {split: [file.rows for file in files] for split, files in data.known.files.items()}
    assert rows == {"train": [ROWS, 1], "validation": [1], "test": [1]}
    assert examples(again(data), "test") == [Example("t", None, None, 0)]


def test_a_test_file_may_have_labels(tmp_path: Path) -> None:
    train = table_file(tmp_path / "train.csv", COLUMNS)
    for labels, expected in ((["yes", "no"], [1, 0]), (["", ""], [None, None])):
        test = table_file(tmp_path / "test.csv", {"text": ["a", "b"], "label": labels})
        assert [one.label for one in examples(own(train, test=(test,)), "test")] == expected
    test = table_file(tmp_path / "test.csv", {"text": ["a", "b"], "label": ["yes", ""]})
    assert "test.csv:3, column 'label': the label is missing" in own_refusal(train, test=(test,))


def test_a_split_is_read_from_the_files_again_and_only_then(tmp_path: Path) -> None:
    path = Path(table_file(tmp_path / "a.csv", COLUMNS))
    data = own(str(path), validation=(str(path),))
    path.unlink()
    assert len(examples(data)) == ROWS  # all splits were read when the data was opened
    with pytest.raises(UserError, match=r"no file.*a\.csv.* new path with .* --train"):
        data.read("train")
    later = again(data)  # nothing is read before it is asked for
    with pytest.raises(UserError, match=r"new path with sqzb finetune --resume auto --validation"):
        later.read("validation")


def test_other_files_than_those_of_the_run(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.csv", COLUMNS)
    data = own(path)
    moved = table_file(tmp_path / "moved.csv", COLUMNS)
    assert examples(again(data, train=(moved,))) == examples(data)

    table_file(tmp_path / "a.csv", {"text": ["new"], "label": ["yes"]})
    with pytest.raises(UserError, match=r"a\.csv is not the file .* --train.*`sqzb eval RUN"):
        again(data).read("validation")
    with pytest.raises(UserError, match="had 1 file when the run began, and has 2"):
        again(data, train=(moved, path)).read("train")
    files = OwnFiles(validation=(path,))
    scored = open_own(files, data.known.for_other_files())
    assert (scored.train_split, scored.kind) == (None, data.kind)
    assert examples(scored, "validation") == [Example("new", None, 1, 0)]
    with pytest.raises(UserError, match=r"has no split train\. Give its files with --train"):
        scored.read("train")


def test_conll_files_are_tokens(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "In O\nRome B-LOC\n\nx O\n")
    data = own(path, kind="tokens", holdout=0.0)
    assert data.kind == Tags(("B-LOC", "O"))
    assert examples(data)[0] == Example("In Rome", None, (1, 0), 0, ("In", "Rome"))
    assert examples(again(data)) == examples(own(path, kind="tokens", holdout=0.0))
    path = written(tmp_path / "b.conll", "In O\nRome B-LOC\n\nx O\n")
    assert own(path, holdout=0.0).kind == data.kind


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    class Builder:
        hash = "0123456789" * 4

        def __init__(self, *given: Any, revision: str | None) -> None:
            self.given = (*given, revision)

        def download_and_prepare(self) -> None: ...

        def as_dataset(self, split: str) -> Any:
            loads.append((*self.given, split))
            names = datasets.ClassLabel(names=["no", "yes"])
            labels = [-1] * ROWS if split == "test" else [row % 2 for row in range(ROWS)]
            features = datasets.Features({"text": datasets.Value("string"), "label": names})
            return datasets.Dataset.from_dict(COLUMNS | {"label": labels}, features=features)

    monkeypatch.setattr(datasets, "load_dataset_builder", Builder)
    name = "hub:owner/name:small"
    data = own(name, test=(name,), split="train[:9]")
    assert loads == [("owner/name", "small", None, s) for s in ("train[:9]", "test")]
    assert (data.name, data.on_disk, data.kind) == ("name", False, Classes(("no", "yes")))
    assert {one.label for one in examples(data, "test")} == {None}
    later = again(data)
    assert examples(later) == examples(data)
    assert loads[2] == ("owner/name", "small", Builder.hash, "train[:9]")  # the commit is kept


def test_each_data_set_of_the_hub_keeps_its_own_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    def builder(name: str, config: None, *, revision: str | None) -> Any:
        def as_dataset(split: str) -> Any:
            loads.append((name, revision))
            return datasets.Dataset.from_dict(COLUMNS | {"label": ["no", "yes"] * (ROWS // 2)})

        commit = {"a/b": "a", "c/d": "c"}[name] * 40
        return SimpleNamespace(
            hash=commit, download_and_prepare=lambda: None, as_dataset=as_dataset
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    data = own("hub:a/b", "hub:c/d@v2")
    examples(again(data))
    assert loads == [("a/b", None), ("c/d", "v2"), ("a/b", "a" * 40), ("c/d", "c" * 40)]


def test_metrics_by_kind() -> None:
    assert metrics_of(Classes(("a", "b")))[0] == "macro_f1"
    assert metrics_of(Tags(("O", "B-x", "I-x"))) == ("entity_f1", "token_accuracy")
    assert metrics_of(Tags(("NOUN", "VERB"))) == ("token_accuracy",)
    assert metrics_of(Tags(("O", "S-x", "E-y-z"))) == ("entity_f1", "token_accuracy")
    assert metrics_of(Tags(("O",))) == metrics_of(Tags(("O", "B-"))) == ("token_accuracy",)


def test_empty_texts_are_kept_and_counted(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.csv", {"text": ["a", "", " "], "label": ["x", "y", "x"]})
    found = own(path, holdout=0.0).read("train")
    assert [one.text_a for one in found.examples] == ["a", "", " "]
    assert found.warnings == [
        "a's train split has an empty text in 2 of its 3 examples: they are kept."
    ]


@pytest.mark.parametrize("name", ["data/train.csv.gz", "hub:a/train:c", "./train.x.csv", "train/"])
def test_names_are_fit_for_folders(name: str) -> None:
    assert data_set_name(name) == "train"
    assert data_set_name("*.csv") == "data"


VALID = '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'
BAD: list[tuple[str, str | bytes, str]] = [
    ("a.csv", "", r"a\.csv is empty"),
    ("a.csv", "text,label\n", r"a\.csv has columns \(text, label\) but no rows"),
    ("a.csv", "great film,1\nbad film,0\n", "no column .*texts"),
    ("a.csv", "text,label\n1,x\n2.5,y\n", r"a\.csv:2: 'text' holds numbers in all rows \('1'\)"),
    ("a.csv", "text,label\na,x\nb\n", r"a\.csv:3: the row has 1 cell"),
    ("a.csv", b"text,label\ncaf\xe9,x\n", r"a\.csv:2: byte 0xe9"),
    ("a.csv", "text,text,label\n", r"a\.csv:1: columns 1 and 2 are both called 'text'"),
    ("a.jsonl", VALID + '{"text": null, "label": "x"}', r"a\.jsonl:3: the text in 'text' is miss"),
    ("a.jsonl", VALID + '{"text": NaN, "label": "x"}', r"a\.jsonl:3: the text in 'text' is miss"),
    ("a.jsonl", VALID + '{"text": 7, "label": "x"}', r"a\.jsonl:3: 'text' holds a number \(7\)"),
    ("a.jsonl", VALID + '{"text": ["a"], "label": "x"}', r"a\.jsonl:3: 'text' holds a list"),
    ("a.jsonl", VALID + '{"text": "c"}', r"a\.jsonl:3: the row has no 'label'"),
    ("a.jsonl", VALID + '{"label": "x"}', r"a\.jsonl:3: the row has no 'text'"),
    ("a.jsonl", VALID + "{", r"a\.jsonl:3: no valid JSON"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    assert re.search(message, own_refusal(written(tmp_path / name, content)))


def test_bad_files_of_the_other_splits(tmp_path: Path) -> None:
    train = table_file(tmp_path / "train.csv", COLUMNS)
    new = table_file(tmp_path / "new.csv", {"text": ["a", "b"], "label": ["no", "yess"]})
    said = own_refusal(train, validation=(new,))
    assert (
        "new.csv:3, column 'label': the label 'yess' is in no training example. Did you mean 'yes'?"
        in said
    )
    other = table_file(tmp_path / "other.csv", {"txt": ["a"], "label": ["no"]})
    said = own_refusal(train, validation=(other,))
    assert "other.csv has no column 'text'. Did you mean 'txt'?" in said
    assert f"{train} has this column" in said
    assert "other.csv has no column 'text'" in own_refusal(train, other)
    unlabelled = table_file(tmp_path / "unlabelled.csv", {"text": ["a"], "x": ["no"]})
    said = own_refusal(train, validation=(unlabelled,))
    assert "unlabelled.csv has no column 'label'" in said


def test_options_that_cannot_be(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.csv", {"text": ["a", "b"], "label": ["x", "y"]})
    assert "too few examples to hold some out" in own_refusal(path)
    assert "data.holdout is 1" in own_refusal(path, holdout=1.0)
    assert "There is no training data. Give files with --train" in own_refusal()
