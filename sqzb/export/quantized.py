"""Weights as 8-bit integers with symmetric scales."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# Seven bits: processors without VNNI add two products of 8 bits in 16 bits, which larger numbers
# would overflow.
LARGEST = 63


def rows_to_int8(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Return integers and a scale for each row, so that integers * scale is close to the weight."""
    largest = np.abs(weight).max(1)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def columns_to_int8(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Return integers and a scale for each column, so that integers * scale is close to it."""
    values, scales = rows_to_int8(weight.T)
    return values.T, scales
