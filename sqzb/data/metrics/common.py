"""Functions that all metrics share: arrays of equal shape, and a ratio that never fails."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def aligned(
    predictions: ArrayLike, labels: ArrayLike, dimensions: tuple[int, ...] = (1,)
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both as arrays.

    Raises:
        ValueError: the shapes differ, or have another number of dimensions.
    """
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.ndim not in dimensions or predicted.shape != true.shape:
        raise ValueError(
            f"predictions {predicted.shape} and labels {true.shape} must be [examples], of equal "
            "length"
        )
    return predicted, true


def ratio(numerator: Any, denominator: Any) -> float:
    """Return the ratio, and 0.0 for a zero denominator."""
    return float(numerator / denominator) if denominator else 0.0
