"""Predictions and figures of a classifier on labelled examples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.data import metrics
from sqzb.data.dataset import DataSet, Kind, Labels, Number, Tags
from sqzb.data.metrics.calibration import nll, sigmoid
from sqzb.data.metrics.entities import entity_f1, scheme_of
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.predict import predict_together
from sqzb.model.open import Classifier
from sqzb.model.scale import to_unit

ONE_HALF = 0.5  # threshold of a label, where none was tuned

Logits = NDArray[np.float32]


class Measured(NamedTuple):
    """Examples by split, a model's logits on them, and the figures of all splits together."""

    splits: Mapping[str, Encoded]
    logits: Mapping[str, Logits]
    figures: dict[str, float]


def evaluate(
    model: Classifier, encoded: Encoded, data: DataSet, accelerator: Accelerator
) -> dict[str, float]:
    """Return the data set's metrics on labelled examples, and their mean as `score`.

    All processes share the work. The model is one in training, which has numbers on its own scale.
    """
    logits = predict_splits(model, {"": encoded}, data.kind, accelerator)[""]
    return measure(data, decide(data.kind, logits), encoded)


def predict_splits(
    model: Classifier, splits: Mapping[str, Encoded], kind: Kind, accelerator: Accelerator
) -> dict[str, Logits]:
    """Return by split the logits of a model in training; numbers are in the unit of the labels.

    All processes share the work, and have to call this function.
    """
    logits_of = {}
    for split, encoded in splits.items():
        logits_of[split] = to_unit(kind, predict_together(model, encoded, accelerator))
    return logits_of


def decide(kind: Kind, logits: Logits, thresholds: Sequence[float] | None = None) -> NDArray[Any]:
    """Return predictions in the form of encoded labels.

    logits: (examples, labels), numbers in the unit of the labels; or (words, tags).
    thresholds: of several labels, the probability from which each holds; None: one half.
    """
    if isinstance(kind, Number):
        return np.asarray(logits[:, 0])
    if isinstance(kind, Labels):
        least = np.full(logits.shape[1], ONE_HALF) if thresholds is None else thresholds
        return np.asarray(sigmoid(logits) >= np.asarray(least), np.float32)
    return np.asarray(logits.argmax(1))


def measure(data: DataSet, predictions: NDArray[Any], encoded: Encoded) -> dict[str, float]:
    """Return the data set's metrics of predictions, and the mean of those that count as `score`."""
    figures = {}
    for name in data.metrics:
        if name == metrics.ENTITY_F1:
            figures[name] = _entity_f1(data.kind, predictions, encoded)
        else:
            figures |= metrics.compute([name], predictions, encoded.labels)
    return figures | {"score": metrics.score(data.score_metrics or data.metrics, figures)}


def _entity_f1(kind: Kind, predictions: NDArray[Any], encoded: Encoded) -> float:
    scheme = scheme_of(kind.names)
    if scheme is None:
        return 0.0
    predicted, true = (tags_by_text(kind, tags, encoded) for tags in (predictions, encoded.labels))
    return entity_f1(predicted, true, scheme)


def tags_by_text(kind: Kind, tags: NDArray[Any], encoded: Encoded) -> list[list[str]]:
    """Return the names of tags (words), a list for each example."""
    assert encoded.words is not None
    names = [kind.names[tag] for tag in tags.tolist()]
    return [names[encoded.words.of(row)] for row in range(len(encoded.ids))]


def evaluate_splits(
    model: Classifier, splits: Mapping[str, Encoded], data: DataSet, accelerator: Accelerator
) -> dict[str, float]:
    """Return the figures of `together` on the validation splits; all processes share the work."""
    return measure_splits(data, predict_splits(model, splits, data.kind, accelerator), splits)


def measure_splits(
    data: DataSet,
    logits: Mapping[str, Logits],
    splits: Mapping[str, Encoded],
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the figures of `together` from the logits by split."""
    figures = {}
    for split, encoded in splits.items():
        figures[split] = measure(data, decide(data.kind, logits[split], thresholds), encoded)
    return together(figures)


def together(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics by split as those of the data set, and their mean as the score.

    MNLI's metrics have the name of the half before them, as in matched_accuracy.
    """
    named: dict[str, float] = {}
    scores: list[float] = []
    for split, of_split in figures.items():
        _, underscore, half = split.partition("_")
        for name, value in of_split.items():
            if name == "score":
                scores.append(value)
            else:
                named[f"{half}{underscore}{name}"] = value
    return named | {"score": sum(scores) / len(scores)}


def majority(data: DataSet, encoded: Encoded) -> dict[str, float]:
    """Return the same figures for a model that always predicts the most common label.

    Of several labels, each is predicted for all examples or for none; of numbers, their mean is.
    """
    labels = encoded.labels
    if isinstance(data.kind, Labels):
        constant = labels.mean(0) >= ONE_HALF
    elif isinstance(data.kind, Number):
        constant = labels.mean()
    else:
        constant = np.bincount(labels.astype(np.int64)).argmax()
    return measure(data, np.full_like(labels, constant), encoded)


def losses(kind: Kind, logits: Logits, encoded: Encoded) -> NDArray[np.float64]:
    """Return each example's cross-entropy in nats, or its squared error, (examples).

    Of several labels it is the mean over the labels, and of tags the mean over the words.
    """
    if isinstance(kind, Number):
        return np.asarray((logits[:, 0].astype(np.float64) - encoded.labels) ** 2)
    if isinstance(kind, Labels):
        # log(1 + exp(x)) - x y is the binary cross-entropy of a logit x to a label y.
        x = logits.astype(np.float64)
        return np.asarray((np.logaddexp(0, x) - x * encoded.labels).mean(1))
    each = nll(logits, encoded.labels)
    if not isinstance(kind, Tags) or encoded.words is None:
        return each
    sums = np.add.reduceat(np.append(each, 0.0), encoded.words.ends[:-1])
    counts = np.diff(encoded.words.ends)
    return np.asarray(np.where(counts > 0, sums, 0.0) / np.maximum(1, counts))
