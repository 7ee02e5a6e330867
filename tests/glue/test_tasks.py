"""GLUE's table: each row is whole, and a name that is not in it is answered with the nearest."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from sqzb.data.dataset import Example
from sqzb.data.metrics import METRICS
from sqzb.errors import UserError
from sqzb.glue.average import average
from sqzb.glue.data import open_task
from sqzb.glue.submission import FILES
from sqzb.glue.tasks import NINE, TASKS, Task, task


@pytest.mark.parametrize("row", TASKS.values(), ids=TASKS)
def test_every_row_is_whole(row: Task) -> None:
    assert TASKS[row.name] is row
    assert row.metrics and set(row.metrics) <= set(METRICS)
    assert 1 <= len(row.columns) == len(row.file_columns) <= 2
    assert (
        len(row.labels) == len(row.file_labels) == len(set(row.labels)) == len(set(row.file_labels))
    )
    assert row.folders and row.hub_config and row.file_label
    assert set(row.counts) == set(row.files) and min(row.counts.values()) > 0
    assert set(row.submission) == set(row.test_splits)
    assert all(split in ("train", *row.validation_splits, *row.test_splits) for split in row.files)


BINARY, TWO_WAY = ("0", "1"), ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("name", "labels", "file_labels", "metrics", "counts"),
    [
        ("cola", ("unacceptable", "acceptable"), BINARY, ("matthews",), (8551, 1043, 1063)),
        ("sst2", ("negative", "positive"), BINARY, ("accuracy",), (67349, 872, 1821)),
        ("mrpc", ("not_equivalent", "equivalent"), BINARY, ("accuracy", "f1"), (3668, 408, 1725)),
        (
            "qqp",
            ("not_duplicate", "duplicate"),
            BINARY,
            ("accuracy", "f1"),
            (363846, 40430, 390965),
        ),
        ("stsb", (), (), ("pearson", "spearman"), (5749, 1500, 1379)),
        ("mnli", THREE_WAY, THREE_WAY, ("accuracy",), (392702, 9815, 9832, 9796, 9847)),
        ("qnli", TWO_WAY, TWO_WAY, ("accuracy",), (104743, 5463, 5463)),
        ("rte", TWO_WAY, TWO_WAY, ("accuracy",), (2490, 277, 3000)),
        ("wnli", ("not_entailment", "entailment"), BINARY, ("accuracy",), (635, 71, 146)),
        ("ax", THREE_WAY, THREE_WAY, ("matthews",), (1104,)),
    ],
)
def test_labels_metrics_and_counts_are_glues(
    name: str,
    labels: tuple[str, ...],
    file_labels: tuple[str, ...],
    metrics: tuple[str, ...],
    counts: tuple[int, ...],
) -> None:
    row = task(name)
    assert (row.labels, row.file_labels, row.metrics) == (labels, file_labels, metrics)
    assert tuple(row.counts[split] for split in row.files) == counts
    assert (row.regression, row.kind.outputs) == (name == "stsb", len(labels) or 1)


def test_mnli_has_two_halves_and_ax_is_predicted_by_its_model() -> None:
    assert task("mnli").validation_splits == ("validation_matched", "validation_mismatched")
    assert task("mnli").submission == {
        "test_matched": "MNLI-m.tsv",
        "test_mismatched": "MNLI-mm.tsv",
    }
    assert task("rte").validation_splits == ("validation",) and task("ax").validation_splits == ()
    assert [row.model_of for row in TASKS.values() if row.model_of] == ["mnli"]
    assert task(task("ax").model_of).labels == task("ax").labels


def test_rows_are_frozen_and_can_be_keys() -> None:
    with pytest.raises(FrozenInstanceError):
        task("mrpc").name = "other"  # type: ignore[misc]
    assert len({task("mrpc"), task("rte"), task("mrpc")}) == 2


@pytest.mark.parametrize("written", ["mprc", "MRPC", "mrpcc"])
def test_an_unknown_name_is_answered_with_the_nearest(written: str) -> None:
    with pytest.raises(
        UserError,
        match=rf"^There is no GLUE task '{written}'\. Did you mean mrpc\?.*mrpc, .*, ax\.$",
    ):
        task(written)


def test_a_name_like_none_is_answered_with_the_list() -> None:
    with pytest.raises(UserError) as caught:
        task("imagenet")
    assert str(caught.value) == (
        "There is no GLUE task 'imagenet'. The tasks are cola, sst2, mrpc, qqp, stsb, mnli, qnli, "
        "rte, wnli, ax."
    )


def test_a_task_of_another_benchmark_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are read like GLUE's, and it has no part in GLUE's average and submission."""
    row = replace(task("rte"), name="cb", folders=("CB",), submission={})
    monkeypatch.setitem(TASKS, "cb", row)
    (tmp_path / "CB").mkdir()
    lines = ["index\tsentence1\tsentence2\tlabel", "0\tA fire.\tIt burns.\tentailment"]
    (tmp_path / "CB" / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    data = open_task("cb", tmp_path)
    assert data.read("train").examples == [Example("A fire.", "It burns.", 0, 0)]
    assert average({(name, "validation"): 0.5 for name in NINE}, wnli=True) == 0.5
    assert "cb" not in {row.name for row, _ in FILES.values()}
