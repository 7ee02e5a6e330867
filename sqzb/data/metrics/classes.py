"""Metrics of predicted classes: one of each example, or several."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.data.metrics.common import aligned, ratio

Counts = NDArray[np.int64]


class ClassFigures(NamedTuple):
    """The figures of a class. The first three are fractions, 0 to 1.

    support: number of examples of the class.
    """

    precision: float
    recall: float
    f1: float
    support: int


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the fraction of equal entries, 0 to 1; both (examples), label indices."""
    predicted, true = aligned(predictions, labels)
    return ratio(np.sum(predicted == true), true.size)


def f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the F1 of the class with index 1, 0 to 1; both (examples), label indices."""
    predicted, true = (values == 1 for values in aligned(predictions, labels))
    return ratio(2 * np.sum(predicted & true), np.sum(predicted) + np.sum(true))


def matthews(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return Matthews correlation of any number of classes (R_K, Gorodkin 2004), -1 to 1.

    Both (examples), label indices.
    """
    predicted, true = aligned(predictions, labels)
    classes, indices = np.unique(np.concatenate([predicted, true]), return_inverse=True)
    predicted_counts = np.bincount(indices[: true.size], minlength=classes.size)
    true_counts = np.bincount(indices[true.size :], minlength=classes.size)
    # Whole numbers up to the root, so that "no spread" is an exact zero.
    shared = np.sum(predicted == true) * true.size - predicted_counts @ true_counts
    spreads = [true.size**2 - counts @ counts for counts in (predicted_counts, true_counts)]
    return ratio(shared, np.sqrt(spreads[0]) * np.sqrt(spreads[1]))


# Below, predictions and labels are both [examples] of label indices, or both [examples, labels] of
# 0 and 1. A class that neither of two vectors of indices has does not count, as in scikit-learn.


def macro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean F1 of all classes, 0 to 1: a rare class counts as much as a common one."""
    f1s = _f1s(*_counts(predictions, labels))
    return ratio(f1s.sum(), f1s.size)


def weighted_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean F1 of all classes, each weighted by its share of the labels, 0 to 1."""
    hits, predicted, true = _counts(predictions, labels)
    return ratio(_f1s(hits, predicted, true) @ true, true.sum())


def micro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the F1 of all decisions together, 0 to 1; accuracy for one class an example."""
    hits, predicted, true = _counts(predictions, labels)
    return ratio(2 * hits.sum(), predicted.sum() + true.sum())


def subset_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the fraction of examples whose labels are all right, 0 to 1."""
    predicted, true = aligned(predictions, labels, (1, 2))
    right = predicted == true
    return ratio(np.sum(right if right.ndim == 1 else right.all(1)), len(true))


def per_class(predictions: ArrayLike, labels: ArrayLike, classes: int) -> list[ClassFigures]:
    """Return the figures of each class from 0 to `classes` - 1."""
    hits, predicted, true = _counts(predictions, labels, classes)
    return [
        ClassFigures(ratio(h, p), ratio(h, t), ratio(2 * h, p + t), t)
        for h, p, t in zip(hits.tolist(), predicted.tolist(), true.tolist(), strict=True)
    ]


def confusion(predictions: ArrayLike, labels: ArrayLike, classes: int) -> Counts:
    """Return the number of examples by true class (rows) and predicted class (columns)."""
    predicted, true = (values.astype(np.int64) for values in aligned(predictions, labels))
    counts: Counts = np.bincount(true * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def _counts(
    predictions: ArrayLike, labels: ArrayLike, classes: int | None = None
) -> tuple[Counts, Counts, Counts]:
    """Return by class the number of hits, of predictions and of labels.

    classes: their number; None for those that occur.
    """
    predicted, true = aligned(predictions, labels, (1, 2))
    if true.ndim == 2:
        ours, theirs = predicted.astype(bool), true.astype(bool)
        return (ours & theirs).sum(0), ours.sum(0), theirs.sum(0)
    both = np.concatenate([predicted, true])
    if classes is None:
        occurring, both = np.unique(both, return_inverse=True)
        classes = len(occurring)
    predicted, true = both[: len(true)], both[len(true) :]
    hits = true[predicted == true]
    counts = [np.bincount(each, minlength=classes) for each in (hits, predicted, true)]
    return counts[0], counts[1], counts[2]


def _f1s(hits: Counts, predicted: Counts, true: Counts) -> NDArray[np.float64]:
    return np.asarray(2 * hits / np.maximum(1, predicted + true), np.float64)
