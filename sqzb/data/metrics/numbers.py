"""Metrics of predicted numbers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.data.metrics.common import aligned, ratio

Floats = NDArray[np.float64]
LARGEST = float(np.finfo(np.float64).max)


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the linear correlation, -1 to 1; both (examples), numbers.

    It is 0.0 also if a number is not finite.
    """
    predicted, true = (
        _centred(values.astype(np.float64)) for values in aligned(predictions, labels)
    )
    correlation = ratio(predicted @ true, np.sqrt(predicted @ predicted) * np.sqrt(true @ true))
    return min(1.0, max(-1.0, correlation))


def spearman(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the correlation of the ranks, -1 to 1; both (examples), numbers.

    Equal numbers share their mean rank. It is 0.0 also if a number is nan.
    """
    predicted, true = (_ranks(values) for values in aligned(predictions, labels))
    return pearson(predicted, true)


def mae(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean absolute error in the labels' unit; both (examples), numbers."""
    errors = _errors(predictions, labels)
    return ratio(errors.sum(), errors.size)


def rmse(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the root of the mean squared error in the labels' unit; both (examples), numbers."""
    errors = _errors(predictions, labels)
    largest = errors.max(initial=0.0)
    if not largest:
        return 0.0
    # Squares of very large and very small errors would leave floating point.
    return min(LARGEST, float(largest * np.sqrt(np.mean((errors / largest) ** 2))))


def _errors(predictions: ArrayLike, labels: ArrayLike) -> Floats:
    """Return absolute errors, with a finite bound in place of those that are not finite.

    The bound is the largest error whose mean is still a number.
    """
    predicted, true = (values.astype(np.float64) for values in aligned(predictions, labels))
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(predicted - true)
    worst = LARGEST / max(1, errors.size)
    return np.asarray(np.minimum(np.nan_to_num(errors, nan=worst, posinf=worst), worst))


def _centred(values: Floats) -> Floats:
    """Move and scale `values` to a range of 1 around a mean of 0.

    Values that are all equal, or not all finite, become zeros. The test on the range finds a
    constant, whose difference from its rounded mean may not be zero. The scaling keeps the squares
    of very large and very small numbers within floating point.
    """
    if not values.size or not np.isfinite(values).all() or values.min() == values.max():
        return np.zeros_like(values)
    values = values / np.abs(values).max()
    values = (values - values.min()) / np.ptp(values)
    return values - np.mean(values)


def _ranks(values: NDArray[Any]) -> Floats:
    """Return ranks from 1, with the mean rank for ties; all nan if a value is nan."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[indices]
    return ranks if not np.isnan(values).any() else np.full(values.shape, np.nan)
