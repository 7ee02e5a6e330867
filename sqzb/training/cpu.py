"""Settings of the process that make a CPU compute at full speed."""

import ctypes
import sys

import numpy as np
import torch

# Options of mallopt, from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def tune_cpu() -> None:
    """Flush denormal numbers to zero, and keep freed memory; call it before the first large tensor.

    Moments and tiny probabilities become denormal, which a CPU computes slowly. glibc returns large
    blocks to the system as soon as they are free, and the system clears them anew, page by page,
    for the next activation. Allocators of other systems keep their defaults.
    """
    for kind in (np.float32, np.float64):
        # numpy computes the smallest numbers once, and would warn later that there are none.
        np.finfo(kind)
    # Threads inherit this setting when they start, so it comes before the first operation.
    torch.set_flush_denormal(True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 * 2**20)):
            mallopt(option, value)
