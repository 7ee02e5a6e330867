"""GLUE's table: each row is whole, and a name that is not in it is answered with the nearest."""

from dataclasses import FrozenInstanceError, replace

import pytest

from sqzb.errors import UserError
from sqzb.finetuning.metrics import METRICS
from sqzb.finetuning.tasks import TASKS, Task, task


@pytest.mark.parametrize("row", TASKS.values(), ids=TASKS)
def test_every_row_is_whole(row: Task) -> None:
    assert TASKS[row.name] is row
    assert row.metrics and set(row.metrics) <= set(METRICS)
    assert 1 <= len(row.columns) == len(row.file_columns) <= 2
    assert len(row.labels) == len(row.file_labels) == len(set(row.labels)) == len(set(row.file_labels))
    assert row.folders and row.hub_config and row.file_label


@pytest.mark.parametrize(
    ("name", "labels", "file_labels", "metrics"),
    [
        ("mrpc", ("not_equivalent", "equivalent"), ("0", "1"), ("accuracy", "f1")),
        ("rte", ("entailment", "not_entailment"), ("entailment", "not_entailment"), ("accuracy",)),
    ],
)
def test_labels_and_metrics_are_glues(
    name: str, labels: tuple[str, ...], file_labels: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    row = task(name)
    assert (row.labels, row.file_labels, row.metrics) == (labels, file_labels, metrics)
    assert (row.regression, row.num_labels) == (False, 2)


def test_a_row_without_labels_is_a_regression_with_one_output() -> None:
    row = replace(task("rte"), labels=(), file_labels=())
    assert (row.regression, row.num_labels) == (True, 1)


def test_rows_are_frozen_and_can_be_keys() -> None:
    with pytest.raises(FrozenInstanceError):
        task("mrpc").name = "other"  # type: ignore[misc]
    assert len({task("mrpc"), task("rte"), task("mrpc")}) == 2


@pytest.mark.parametrize("written", ["mprc", "MRPC", "mrpcc"])
def test_an_unknown_name_is_answered_with_the_nearest(written: str) -> None:
    with pytest.raises(UserError, match=rf"^There is no GLUE task '{written}'\. Did you mean mrpc\?.*mrpc, rte\.$"):
        task(written)


def test_a_name_like_none_is_answered_with_the_list() -> None:
    with pytest.raises(UserError) as caught:
        task("imagenet")
    assert str(caught.value) == "There is no GLUE task 'imagenet'. The tasks are mrpc, rte."
