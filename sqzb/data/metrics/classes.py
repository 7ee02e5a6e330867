"""Metrics of predicted classes."""

import numpy as np
from numpy.typing import ArrayLike

from sqzb.data.metrics.common import aligned, ratio


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of equal entries, 0 to 1. Both [examples], label indices."""
    predicted, true = aligned(predictions, labels)
    return ratio(np.sum(predicted == true), true.size)


def f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Harmonic mean of precision and recall of the class with index 1, 0 to 1. Both [examples], label indices."""
    predicted, true = (values == 1 for values in aligned(predictions, labels))
    return ratio(2 * np.sum(predicted & true), np.sum(predicted) + np.sum(true))


def matthews(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Matthews correlation of any number of classes (R_K, Gorodkin 2004), -1 to 1. Both [examples], label indices."""
    predicted, true = aligned(predictions, labels)
    classes, indices = np.unique(np.concatenate([predicted, true]), return_inverse=True)
    predicted_counts = np.bincount(indices[: true.size], minlength=classes.size)
    true_counts = np.bincount(indices[true.size :], minlength=classes.size)
    # Whole numbers up to the root, so that "no spread" is an exact zero.
    shared = np.sum(predicted == true) * true.size - predicted_counts @ true_counts
    spreads = [true.size**2 - counts @ counts for counts in (predicted_counts, true_counts)]
    return ratio(shared, np.sqrt(spreads[0]) * np.sqrt(spreads[1]))
