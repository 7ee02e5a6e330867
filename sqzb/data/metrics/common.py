"""What all metrics share: arrays of equal length, and a ratio without a division by zero."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def aligned(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            f"predictions {predicted.shape} and labels {true.shape} must be [examples], of equal length"
        )
    return predicted, true


def ratio(numerator: Any, denominator: Any) -> float:
    return float(numerator / denominator) if denominator else 0.0
