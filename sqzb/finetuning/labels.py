"""The match of a data set's labels with a model's outputs, and a check of their order."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb.data.dataset import Classes, DataSet, Kind, Labels, Number, Tags
from sqzb.errors import UserError
from sqzb.finetuning.encode import Encoded

FEW = 500  # examples below which a score says little about the order of the labels


def outputs_of(
    data: DataSet, id2label: Mapping[int, str], source: object, warn: Callable[[str], None]
) -> list[int]:
    """Return the model's output for each label of the data set, matched by name, ignoring case.

    Labels are matched by name, not by index: code bases number MNLI's labels differently, and
    matching by index drops a good model to 4 to 7 % accuracy (transformers#10401). Names without
    meaning (LABEL_0, LABEL_1 ...) are assumed to be in the data set's order, with a warning.

    source: the model, for messages.
    warn: gets the warning.

    Raises:
        UserError: the model has other names.
    """
    names = [id2label[number] for number in range(len(id2label))]
    plain = [name.casefold() for name in names]
    labels = data.kind.names
    if isinstance(data.kind, Number) and len(names) == 1:
        return [0]
    if labels and plain == [f"label_{number}" for number in range(len(labels))]:
        warn(
            f"The model in {source} does not name its labels ({', '.join(names)}); they are "
            f"interpreted as {', '.join(labels)}, in this order. If the order is different, name "
            "them in its config.json (id2label)."
        )
        return list(range(len(labels)))
    if labels and sorted(plain) == sorted(label.casefold() for label in labels):
        return [plain.index(label.casefold()) for label in labels]
    raise UserError(
        f"The model in {source} has the {'labels' if len(names) > 1 else 'label'} "
        f"{', '.join(names)}, and {data.name} has "
        f"{', '.join(labels) or 'a number in their place'}. Give the task that it was finetuned on."
    )


def problem_type(kind: Kind) -> str | None:
    """Return transformers' name of a kind of label in config.json."""
    if isinstance(kind, Number):
        return "regression"
    if isinstance(kind, Labels):
        return "multi_label_classification"
    return "single_label_classification" if isinstance(kind, Classes) else None


def check_kind(data: DataSet, config: Any, classifies_tokens: bool, source: object) -> None:
    """Check that a model gives predictions of the kind of a data set's labels.

    config: the model's configuration.
    classifies_tokens: whether the model gives each token a label.
    source: the model, for messages.

    Raises:
        UserError: the model gives predictions of another kind.
    """
    if classifies_tokens:
        gives = "a tag to each word"
    elif config.problem_type == problem_type(Labels(())):
        gives = "any number of labels to a text"
    else:
        gives = "one label to a text"
    wants = "one label to a text"
    if isinstance(data.kind, Tags):
        wants = "a tag to each word"
    elif isinstance(data.kind, Labels):
        wants = "any number of labels to a text"
    if gives != wants:
        raise UserError(
            f"The model in {source} gives {gives}, and {data.name} gives {wants}. Give a model "
            "that was finetuned on such data."
        )


def confusion(
    classes: Classes | Tags, predictions: NDArray[Any], encoded: Encoded
) -> NDArray[np.int64]:
    """Return the number of examples by true label (rows) and predicted label (columns)."""
    k = classes.outputs
    return np.bincount(encoded.labels * k + predictions, minlength=k * k).reshape(k, k)


def under_chance(counts: NDArray[np.int64]) -> str | None:
    """Return a warning if a confusion matrix has significantly fewer hits than chance; else None.

    Chance is the number of hits if labels and predictions were independent, with the frequencies
    that they have. Unlike 1 / labels, it also holds for a model that predicts only the rarest
    label. Significant are 5 standard deviations on 500 examples or more.
    """
    n = int(counts.sum())
    hits, chance = counts.trace() / max(1, n), counts.sum(0) @ counts.sum(1) / max(1, n) ** 2
    if n < FEW or hits >= chance - 5 * np.sqrt(chance * (1 - chance) / n):
        return None
    return (
        f"The accuracy, {hits:.1%}, is clearly under that of chance, {chance:.1%}: the model "
        "tells the labels apart, but their order is most likely another than id2label in its "
        "config.json says: other code bases number MNLI's labels in another order. Compare with "
        "how it was trained."
    )
