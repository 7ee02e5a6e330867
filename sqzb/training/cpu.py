"""What makes a CPU compute at full speed, for the whole process."""

import ctypes
import sys

import numpy as np
import torch

# Of malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def tune_cpu() -> None:
    """Flush tiny numbers to zero, and keep memory that is free. To be called before the first large tensor.

    Moments and tiny probabilities sink below what a CPU computes at full speed: training slowed
    down to a third. And glibc gives large blocks back to the system as soon as they are free, which
    then clears them anew, page by page, for the next activation: up to a third of a forward. Other
    systems keep their own ways.
    """
    for kind in (np.float32, np.float64):
        np.finfo(
            kind
        )  # numpy looks once at the smallest numbers, and would warn that there are none
    # The threads that are begun later take this over, so it comes first.
    torch.set_flush_denormal(True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 * 2**20)):
            mallopt(option, value)
