"""Data sets of the Hub, from a stand-in for its library."""

from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from sqzb.data.formats import hub, tables
from sqzb.errors import UserError

COMMIT = "0123456789" * 4
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["bad", "good"]),
        "words": datasets.List(datasets.Value("string")),
        "tags": datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
    }
)
ROWS = {
    "text": ["a", "b", "c"],
    "label": [1, 0, -1],
    "words": [["x"], [], ["y", "z"]],
    "tags": [[1], [], [0, 1]],
}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, ...]]:
    """The data set whose label names the Hub knows; each load: name, config, revision, split."""
    found: list[tuple[str | None, ...]] = []

    def builder(name: str, config: str | None, *, revision: str | None) -> Any:
        def as_dataset(split: str) -> Any:
            found.append((name, config, revision, split))
            return datasets.Dataset.from_dict(ROWS, features=FEATURES)

        return SimpleNamespace(
            hash=COMMIT, download_and_prepare=lambda: None, as_dataset=as_dataset
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    return found


def test_numbers_of_classes_are_names(
    loads: list[tuple[str | None, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ROWS_AT_ONCE", 2)
    [table] = tables(["hub:owner/name:small"], split="validation", revision="main")
    assert loads == [("owner/name", "small", "main", "validation")]
    assert (table.columns, table.commit) == (tuple(FEATURES), COMMIT)
    rows = list(table.rows())
    assert [row.values["label"] for row in rows] == ["good", "bad", None]
    assert [row.values["tags"] for row in rows] == [["B-x"], [], ["O", "B-x"]]
    assert dict(list(table.rows(["text"]))[2].values) == {"text": "c"}
    assert table.where(rows[2]) == "hub:owner/name:small, split validation, row 3"


@pytest.mark.parametrize(
    ("given", "load", "path"),
    [
        ("hub:a/b", ("a/b", None, None, "train"), "hub:a/b, split train"),
        ("hub:a/b@v1", ("a/b", None, "v1", "train"), "hub:a/b@v1, split train"),
        ("hub:a/b@v1:c:dev", ("a/b", "c", "v1", "dev"), "hub:a/b@v1:c:dev"),
        ("hub:a/b::dev[:9]", ("a/b", None, None, "dev[:9]"), "hub:a/b::dev[:9]"),
        (
            "hub:a/b@refs/pr/1:c",
            ("a/b", "c", "refs/pr/1", "train"),
            "hub:a/b@refs/pr/1:c, split train",
        ),
    ],
)
def test_revision_config_and_split_in_a_name(
    loads: list[tuple[str | None, ...]], given: str, load: tuple[str | None, ...], path: str
) -> None:
    [table] = tables([given])
    assert loads == [load] and table.path == path


def test_another_commit_than_the_wanted(loads: list[tuple[str | None, ...]]) -> None:
    assert tables(["hub:owner/name"], revision=COMMIT)
    with pytest.raises(UserError, match=f"newest copy in the local cache is of commit {COMMIT}"):
        tables(["hub:owner/name"], revision="9" * 40)


@pytest.mark.parametrize("name", ["hub:", "hub:name", "hub:a/b/c", "hub:../x"])
def test_names_that_the_hub_cannot_have(name: str) -> None:
    with pytest.raises(UserError, match=r"is no data set of the Hub. Give hub:owner/name"):
        tables([name])


def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(*given: Any, **options: Any) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    said = r"Split 'train' of hub:a/b could not be had .*\(ConnectionError: no network\)"
    with pytest.raises(UserError, match=said):
        tables(["hub:a/b"])
