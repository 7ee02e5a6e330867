"""Calibration of probabilities: its error, and the fits of temperature and thresholds."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.data.metrics.common import ratio

Floats = NDArray[np.float64]

BINS = 15  # as in Guo et al. 2017
# Bounds of a fitted temperature; beyond them all predictions would be certain, or all equal.
COLDEST, HOTTEST = 0.05, 20.0
_GOLDEN = (np.sqrt(5) - 1) / 2
_PRECISE = 1e-7  # of the logarithm of a temperature


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Return probabilities (examples, classes) of logits (examples, classes) over a temperature."""
    return np.asarray(np.exp(log_softmax(logits, temperature)))


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Return the logarithms of the probabilities of `softmax`."""
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = scaled - scaled.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def sigmoid(logits: ArrayLike) -> Floats:
    """Return the probability of each logit alone."""
    values = np.asarray(logits, np.float64)
    # Two forms of one function: neither has a power that is too large.
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1 + small))


def nll(logits: ArrayLike, labels: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Return the cross-entropy of each example in nats; labels (examples): class indices."""
    right = np.take_along_axis(log_softmax(logits, temperature), labels[:, None], 1)
    return np.asarray(-right[:, 0])


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean distance of confidence and accuracy over bins, 0 to 1 (Guo et al. 2017).

    probabilities: (examples, classes).
    labels: (examples), class indices.

    The bins have equal widths.
    """
    probability, true = np.asarray(probabilities, np.float64), np.asarray(labels)
    if not true.size:
        return 0.0
    confidence, right = probability.max(1), probability.argmax(1) == true
    # A bin includes its upper end.
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    confidences = np.bincount(bins, confidence, BINS)
    hits = np.bincount(bins, right, BINS)
    return ratio(np.abs(confidences - hits).sum(), true.size)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature with the lowest mean cross-entropy (Guo et al. 2017).

    logits: (examples, classes).
    labels: (examples), class indices.

    If all examples are predicted correctly, the best temperature would be zero, and all predictions
    would be certain; the temperature is 1 then.
    """
    values, true = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if not np.isfinite(values).all() or (values.argmax(1) == true).all():
        return 1.0

    # The cross-entropy is convex in 1 / T, and so has one minimum in log T: golden sections.
    low, high = np.log(COLDEST), np.log(HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = (nll(values, true, np.exp(t)).mean() for t in (left, right))
    while high - low > _PRECISE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = nll(values, true, np.exp(left)).mean()
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = nll(values, true, np.exp(right)).mean()
    return float(np.exp((low + high) / 2))


def best_threshold(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the threshold with the best F1 on these examples; probabilities from it on are hits.

    probabilities, labels: (examples), of one label; labels are 0 and 1.

    Of equally good thresholds it is 0.5 or the nearest, halfway between two probabilities.
    """
    probability, true = np.asarray(probabilities, np.float64), np.asarray(labels).astype(bool)
    # All thresholds between two neighbours among these give the same predictions.
    ends = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    lower, upper = ends[:-1], ends[1:]

    ordered, ordered_hits = np.sort(probability), np.sort(probability[true])
    predicted = ordered.size - np.searchsorted(ordered, upper)
    hits = ordered_hits.size - np.searchsorted(ordered_hits, upper)
    f1 = 2 * hits / np.maximum(1, predicted + true.sum())

    contains_half = (lower < 0.5) & (upper >= 0.5)
    middle = np.where(contains_half, 0.5, (lower + upper) / 2)
    best = middle[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])
