"""Predictions by name, and where a model is wrong: confusion, figures by class, worst mistakes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb import console
from sqzb.data.dataset import Classes, DataSet, Example, Kind, Labels, Number
from sqzb.files import write_json
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import Logits, decide, losses, tags_by_text
from sqzb.finetuning.labels import confusion, under_chance
from sqzb.finetuning.report import figures_by_name
from sqzb.training.run_folder import EVALUATION

WORST = 10  # mistakes to show
SHOWN = 60  # characters of a text on the terminal
MOST_CLASSES = 20  # in a confusion matrix on the terminal
WIDEST_HEADER = 40  # characters of all names of classes; numbers stand for longer ones


def by_name(kind: Kind, values: NDArray[Any], encoded: Encoded) -> list[Any]:
    """Return for each example the name of its class, its number, or a list of names.

    values: predictions or labels, in the form of encoded labels.
    """
    if isinstance(kind, Number):
        return list(values.tolist())
    if isinstance(kind, Classes):
        return [kind.names[value] for value in values.tolist()]
    if isinstance(kind, Labels):
        names = np.array(kind.names, dtype=object)
        return [names[row > 0].tolist() for row in values]
    return tags_by_text(kind, values, encoded)


def by_label(kind: Kind, predictions: NDArray[Any], encoded: Encoded) -> dict[str, Any]:
    """Return the number of examples, the confusion matrix of classes, and each label's figures.

    predictions: in the form of encoded labels.
    """
    report: dict[str, Any] = {"examples": len(encoded.ids)}
    if isinstance(kind, Classes):
        report["confusion"] = confusion(kind, predictions, encoded).tolist()
    if not isinstance(kind, Number):
        figures = figures_by_name(kind, predictions, encoded)
        report["by_label"] = {name: figure._asdict() for name, figure in figures.items()}
    return report


def write_evaluation(
    run: Path,
    data: DataSet,
    logits: Mapping[str, Logits],
    splits: Mapping[str, Encoded],
    thresholds: Sequence[float] | None,
    test: Mapping[str, float],
) -> None:
    """Write the figures of each label to the run's evaluation.json, in the form of `sqzb eval`.

    logits, splits: by split. thresholds: of several labels.
    test: figures of the labelled test examples, in `splits` too; empty without such examples.
    """
    details = {}
    for name, encoded in splits.items():
        predictions = decide(data.kind, logits[name], thresholds)
        details[name] = by_label(data.kind, predictions, encoded)
    content = {"task": data.name, "labels": list(data.kind.names), "splits": details}
    if test:
        content["test"] = {
            name: value if math.isfinite(value) else None for name, value in test.items()
        }
    write_json(run / EVALUATION, content)


def find_mistakes(
    kind: Kind,
    examples: Sequence[Example],
    encoded: Encoded,
    logits: Logits,
    thresholds: Sequence[float] | None,
) -> dict[str, Any]:
    """Return where the model is wrong: confusion, figures by label, and its worst mistakes."""
    predictions = decide(kind, logits, thresholds)
    report = by_label(kind, predictions, encoded)

    loss = losses(kind, logits, encoded)
    labels, given = (by_name(kind, values, encoded) for values in (encoded.labels, predictions))
    wrong = [row for row in np.argsort(-loss, kind="stable") if labels[row] != given[row]]
    report["mistakes"] = [
        {
            **examples[row]._asdict(),
            "label": labels[row],
            "prediction": given[row],
            "loss": loss[row],
        }
        for row in wrong[:WORST]
    ]
    return report


def print_mistakes(kind: Kind, split: str, report: Mapping[str, Any]) -> None:
    """Print the confusion and the worst mistakes, from the report of `find_mistakes` on a split."""
    if isinstance(kind, Classes):
        _print_confusion(kind, split, np.array(report["confusion"]))
    if report["mistakes"]:
        columns = ("text", "label", "taken for", "loss")
        rows = [_row(mistake) for mistake in report["mistakes"]]
        console.table(f"{split}: the worst mistakes", columns, rows)


def _print_confusion(kind: Classes, split: str, counts: NDArray[np.int64]) -> None:
    if kind.outputs <= MOST_CLASSES:
        rows, named, header = [], list(kind.names), list(kind.names)
        if len("".join(header)) > WIDEST_HEADER:  # a terminal would cut names and counts
            header = [str(number) for number in range(1, kind.outputs + 1)]
            named = [f"{number}: {name}" for number, name in zip(header, named, strict=True)]
        for label, row in zip(named, counts.tolist(), strict=True):
            rows.append((label, *map("{:,}".format, row)))
        console.table(
            f"{split}: true labels (rows) and predicted labels (columns)",
            ("label", *header),
            rows,
        )
    warning = under_chance(counts)
    if warning is not None:
        console.warn(warning)


def _row(mistake: Mapping[str, Any]) -> tuple[str, str, str, str]:
    label, prediction = mistake["label"], mistake["prediction"]
    if mistake["words"] is not None:
        words = zip(mistake["words"], mistake["label"], mistake["prediction"], strict=True)
        label, prediction = [], []
        for word, due, given in words:
            if due != given:
                label.append(f"{word}/{due}")
                prediction.append(f"{word}/{given}")
    texts = [mistake["text_a"], *([] if mistake["text_b"] is None else [mistake["text_b"]])]
    return (
        "\n".join(_cut(text) for text in texts),
        _cut(_text(label)),
        _cut(_text(prediction)),
        f"{mistake['loss']:.2f}",
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "(none)"
    return value if isinstance(value, str) else f"{value:.2f}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
