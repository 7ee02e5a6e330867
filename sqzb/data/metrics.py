"""Metrics of predictions in plain numpy: no network, no nan.

Every metric is a fraction, not a percentage. Where the usual formula divides zero by zero (nothing predicted, one
class only, a constant, no examples) the value is 0.0, as scikit-learn has it for F1 and Matthews: a model without
information earns nothing, and a mean of metrics stays a number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of equal entries, 0 to 1. Both [examples], label indices."""
    predicted, true = _aligned(predictions, labels)
    return _ratio(np.sum(predicted == true), true.size)


def f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Harmonic mean of precision and recall of the class with index 1, 0 to 1. Both [examples], label indices."""
    predicted, true = (values == 1 for values in _aligned(predictions, labels))
    return _ratio(2 * np.sum(predicted & true), np.sum(predicted) + np.sum(true))


def matthews(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Matthews correlation of any number of classes (R_K, Gorodkin 2004), -1 to 1. Both [examples], label indices."""
    predicted, true = _aligned(predictions, labels)
    classes, indices = np.unique(np.concatenate([predicted, true]), return_inverse=True)
    predicted_counts = np.bincount(indices[: true.size], minlength=classes.size)
    true_counts = np.bincount(indices[true.size :], minlength=classes.size)
    # Whole numbers up to the root, so that "no spread" is an exact zero.
    shared = np.sum(predicted == true) * true.size - predicted_counts @ true_counts
    spreads = [true.size**2 - counts @ counts for counts in (predicted_counts, true_counts)]
    return _ratio(shared, np.sqrt(spreads[0]) * np.sqrt(spreads[1]))


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Linear correlation, -1 to 1; 0.0 also where a number is not finite. Both [examples], numbers."""
    predicted, true = (
        _centred(values.astype(np.float64)) for values in _aligned(predictions, labels)
    )
    correlation = _ratio(predicted @ true, np.sqrt(predicted @ predicted) * np.sqrt(true @ true))
    return min(1.0, max(-1.0, correlation))


def spearman(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Correlation of the ranks, -1 to 1, equal numbers sharing their mean rank; 0.0 also where a number is nan.

    Both [examples], numbers.
    """
    predicted, true = (_ranks(values) for values in _aligned(predictions, labels))
    return pearson(predicted, true)


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)
}


def compute(names: Sequence[str], predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return each named metric, in this order. Both [examples]: label indices, or numbers for regression."""
    return {name: METRICS[name](predictions, labels) for name in names}


def score(names: Sequence[str], metrics: Mapping[str, float]) -> float:
    """Return the one number for a data set: the mean of its metrics (Wang et al. 2018, section 4)."""
    return sum(metrics[name] for name in names) / len(names)


def _aligned(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            f"predictions {predicted.shape} and labels {true.shape} must be [examples], of equal length"
        )
    return predicted, true


def _ratio(numerator: Any, denominator: Any) -> float:
    return float(numerator / denominator) if denominator else 0.0


def _centred(values: Floats) -> Floats:
    """`values` moved and scaled to a range of 1 around a mean of 0, or zeros when they have no range or no finite one.

    The test on the range finds a constant, which minus its own rounded mean may not be zero; the scaling keeps the
    squares of very large and very small numbers within floating point.
    """
    if not values.size or not np.isfinite(values).all() or values.min() == values.max():
        return np.zeros_like(values)
    values = values / np.abs(values).max()
    values = (values - values.min()) / np.ptp(values)
    return values - np.mean(values)


def _ranks(values: NDArray[Any]) -> Floats:
    """Ranks from 1, ties given the mean of the ranks they share; all nan when one value is nan, as it has no place."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[indices]
    return ranks if not np.isnan(values).any() else np.full(values.shape, np.nan)
