"""Metrics of predictions in plain numpy: no network, no nan.

Every metric is a fraction, not a percentage. Where the usual formula divides zero by zero (nothing predicted, one
class only, a constant, no examples) the value is 0.0, as scikit-learn has it for F1 and Matthews: a model without
information earns nothing, and a mean of metrics stays a number.
"""

from collections.abc import Callable, Mapping, Sequence

from numpy.typing import ArrayLike

from sqzb.data.metrics.classes import accuracy, f1, matthews
from sqzb.data.metrics.numbers import pearson, spearman

__all__ = [
    "METRICS",
    "accuracy",
    "compute",
    "f1",
    "matthews",
    "pearson",
    "score",
    "spearman",
]

METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)
}


def compute(names: Sequence[str], predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return each named metric, in this order. Both [examples]: label indices, or numbers for regression."""
    return {name: METRICS[name](predictions, labels) for name in names}


def score(names: Sequence[str], metrics: Mapping[str, float]) -> float:
    """Return the one number for a data set: the mean of its metrics (Wang et al. 2018, section 4)."""
    return sum(metrics[name] for name in names) / len(names)
