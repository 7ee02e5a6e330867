"""Predictions and figures of a classifier on labelled examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.data import metrics
from sqzb.data.dataset import DataSet, Kind, Number
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.predict import predict_together
from sqzb.model.open import Classifier


def evaluate(
    model: Classifier, encoded: Encoded, data: DataSet, accelerator: Accelerator
) -> dict[str, float]:
    """Return the data set's metrics on labelled examples, and their mean as `score`; all processes share the work."""
    return measure(data, decide(data.kind, predict_together(model, encoded, accelerator)), encoded)


def decide(kind: Kind, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Label indices (examples), or numbers for regression, from logits (examples, labels)."""
    decided: NDArray[Any] = logits[:, 0] if isinstance(kind, Number) else logits.argmax(1)
    return decided


def measure(data: DataSet, predictions: NDArray[Any], encoded: Encoded) -> dict[str, float]:
    """The data set's metrics of predictions (examples), and their mean as `score`."""
    figures = metrics.compute(data.metrics, predictions, encoded.labels)
    return figures | {"score": metrics.score(data.score_metrics or data.metrics, figures)}


def evaluate_splits(
    model: Classifier, splits: Mapping[str, Encoded], data: DataSet, accelerator: Accelerator
) -> dict[str, float]:
    """Return the figures of `together` on the validation splits; all processes share the work."""
    return together(
        {split: evaluate(model, encoded, data, accelerator) for split, encoded in splits.items()}
    )


def together(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics by split as those of the data set, and their mean as the one score.

    MNLI's metrics have the half before them, as matched_accuracy.
    """
    halves = {split: "".join(f"{half}_" for half in split.split("_")[1:]) for split in figures}
    named = {
        f"{halves[split]}{name}": value
        for split, of in figures.items()
        for name, value in of.items()
    }
    scores = [named.pop(f"{half}score") for half in halves.values()]
    return named | {"score": sum(scores) / len(scores)}


def majority(data: DataSet, encoded: Encoded) -> dict[str, float]:
    """The same figures for a model that always gives the commonest label, or the mean of a regression."""
    labels = encoded.labels
    constant = (
        labels.mean()
        if isinstance(data.kind, Number)
        else np.bincount(labels.astype(np.int64)).argmax()
    )
    return measure(data, np.full_like(labels, constant), encoded)


def losses(kind: Kind, logits: NDArray[np.float32], encoded: Encoded) -> NDArray[np.float64]:
    """Of each example (examples): cross-entropy in nats, or the squared error."""
    if isinstance(kind, Number):
        return np.asarray((logits[:, 0].astype(np.float64) - encoded.labels) ** 2)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = np.take_along_axis(shifted, encoded.labels[:, None], 1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(1)) - right)
