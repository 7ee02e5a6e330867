"""Metrics of predicted numbers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.data.metrics.common import aligned, ratio

Floats = NDArray[np.float64]
LARGEST = float(np.finfo(np.float64).max)


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Linear correlation, -1 to 1; 0.0 also where a number is not finite. Both [examples], numbers."""
    predicted, true = (
        _centred(values.astype(np.float64)) for values in aligned(predictions, labels)
    )
    correlation = ratio(predicted @ true, np.sqrt(predicted @ predicted) * np.sqrt(true @ true))
    return min(1.0, max(-1.0, correlation))


def spearman(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Correlation of the ranks, -1 to 1, equal numbers sharing their mean rank; 0.0 also where a number is nan.

    Both [examples], numbers.
    """
    predicted, true = (_ranks(values) for values in aligned(predictions, labels))
    return pearson(predicted, true)


def mae(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean absolute error, 0 and up, in the labels' unit. Both [examples], numbers."""
    errors = _errors(predictions, labels)
    return ratio(errors.sum(), errors.size)


def rmse(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Root of the mean squared error, 0 and up, in the labels' unit. Both [examples], numbers."""
    errors = _errors(predictions, labels)
    largest = errors.max(initial=0.0)
    if not largest:
        return 0.0
    # Squares of very large and very small errors would leave floating point.
    return min(LARGEST, float(largest * np.sqrt(np.mean((errors / largest) ** 2))))


def _errors(predictions: ArrayLike, labels: ArrayLike) -> Floats:
    """Absolute errors; one that is not finite counts as the largest whose mean is a number."""
    predicted, true = (values.astype(np.float64) for values in aligned(predictions, labels))
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(predicted - true)
    worst = LARGEST / max(1, errors.size)
    return np.asarray(np.minimum(np.nan_to_num(errors, nan=worst, posinf=worst), worst))


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
