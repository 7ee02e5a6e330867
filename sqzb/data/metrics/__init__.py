"""Metrics of predictions in plain numpy: no network, no nan.

Every metric is a fraction, not a percentage, except the errors of numbers, which have the numbers'
unit. If the usual formula divides zero by zero (nothing predicted, one class only, a constant, no
examples), the value is 0.0, as scikit-learn's F1 and Matthews: a model without information scores
zero, and a mean of metrics is always a number.
"""

from collections.abc import Callable, Mapping, Sequence

from numpy.typing import ArrayLike

from sqzb.data.metrics.classes import (
    accuracy,
    f1,
    macro_f1,
    matthews,
    micro_f1,
    subset_accuracy,
    weighted_f1,
)
from sqzb.data.metrics.entities import token_accuracy
from sqzb.data.metrics.numbers import mae, pearson, rmse, spearman

__all__ = [
    "ENTITY_F1",
    "LOWER_IS_BETTER",
    "METRICS",
    "accuracy",
    "compute",
    "f1",
    "macro_f1",
    "mae",
    "matthews",
    "micro_f1",
    "pearson",
    "rmse",
    "score",
    "shown",
    "spearman",
    "subset_accuracy",
    "token_accuracy",
    "weighted_f1",
]

METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    metric.__name__: metric
    for metric in (
        *(accuracy, f1, matthews, macro_f1, weighted_f1),
        *(pearson, spearman, mae, rmse),
        *(micro_f1, subset_accuracy, token_accuracy),
    )
}
ENTITY_F1 = "entity_f1"  # needs names of tags and bounds of texts, so it is in no table of arrays
LOWER_IS_BETTER = ("mae", "rmse")  # errors, in the unit of the labels


def compute(names: Sequence[str], predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return each named metric, in this order.

    predictions, labels: both (examples), label indices or numbers; or both (examples, labels) of 0
    and 1.
    """
    return {name: METRICS[name](predictions, labels) for name in names}


def score(names: Sequence[str], metrics: Mapping[str, float]) -> float:
    """Return the score of a data set: the mean of its metrics (Wang et al. 2018, section 4).

    An error, which is better the lower it is, counts negatively.
    """
    values = [-metrics[name] if name in LOWER_IS_BETTER else metrics[name] for name in names]
    return sum(values) / len(names)


def shown(name: str, value: float, scored: Sequence[str] = ()) -> str:
    """Return a figure as text: a percentage, or for an error the number.

    name: name of a metric, possibly behind that of a half of the validation; or "score".
    scored: the metrics whose mean is the score.
    """
    if name == "score":
        return f"{value:.4g}" if set(scored) & set(LOWER_IS_BETTER) else f"{value:.1%}"
    return f"{value:.4g}" if name.split("_")[-1] in LOWER_IS_BETTER else f"{value:.1%}"
