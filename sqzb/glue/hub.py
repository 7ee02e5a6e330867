"""GLUE's examples from the Hub."""

from pathlib import Path
from typing import Any

from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.glue.table import layout
from sqzb.glue.tasks import HUB_DATASET, SCORE_RANGE, Task, is_test
from sqzb.glue.values import example_of, score_of
from sqzb.hub import asked_once, hub_id, note, offline

_CHANGED = "The dataset on the Hub has changed: give --glue-dir with GLUE's own files."


def is_on_hub(folder: Path) -> bool:
    """Return whether the path is no folder but a revision of GLUE on the Hub."""
    asked = hub_id(str(folder))
    return asked is not None and asked.name == HUB_DATASET and not folder.exists()


def from_hub(task: Task, split: str, given: str | None) -> list[Example]:
    """Return the examples of the Hub's data set.

    given: nyu-mll/glue@revision; None: the newest.
    """
    import datasets

    asked = hub_id(given or HUB_DATASET)
    assert asked is not None
    try:
        with asked_once(HUB_DATASET):
            builder = datasets.load_dataset_builder(
                HUB_DATASET, task.hub_config, revision=asked.revision
            )
            builder.download_and_prepare()
            data = builder.as_dataset(split=split)
    # Errors of datasets, the Hub's client and HTTP have no common base class, and one remedy.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{task.name}'s {split} split could not be loaded from {given or HUB_DATASET} on the "
            f"Hub, nor from its local cache ({reason}){offline()}. Connect to the network once "
            f"(with HF_HUB_OFFLINE unset), or give --glue-dir. {layout(task)}"
        ) from error
    note(HUB_DATASET, str(builder.hash or ""))
    missing = [column for column in (*task.columns, "label") if column not in data.column_names]
    if missing:
        raise UserError(
            f"{task.name}'s {split} split in {HUB_DATASET} has no column {' nor '.join(missing)}, "
            f"only {', '.join(data.column_names)}. {_CHANGED}"
        )
    table = data.to_dict()
    pairs = zip(*(table[column] for column in task.columns), strict=True)
    labels = _hub_labels(task, split, data.features["label"], table["label"])
    rows = table.get("idx", range(len(labels))) if is_test(split) else range(len(labels))
    return [example_of(*example) for example in zip(pairs, labels, rows, strict=True)]


def _hub_labels(task: Task, split: str, feature: Any, values: list[Any]) -> list[Any]:
    """Return the labels in the order of `task.labels`, matched by name; None in a test split.

    The Hub orders the names of some tasks differently, and stores -1 for a label that GLUE keeps
    back.
    """
    if is_test(split):
        return [None] * len(values)
    labels: list[Any]
    if task.regression:
        labels = [score_of(value) for value in values]
        names, allowed = "", "from {:g} to {:g}".format(*SCORE_RANGE)
    else:
        own_index = {
            index: task.labels.index(name)
            for index, name in enumerate(feature.names)
            if name in task.labels
        }
        labels = [own_index.get(value) for value in values]
        names, allowed = f" of {', '.join(feature.names)}", ", ".join(task.labels)
    if None in labels:
        row = labels.index(None)
        raise UserError(
            f"Row {row} of {task.name}'s {split} split in {HUB_DATASET} has label "
            f"{values[row]}{names}; the labels must be {allowed}. {_CHANGED}"
        )
    return labels
