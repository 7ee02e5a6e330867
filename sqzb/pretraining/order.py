"""The chunks of step n, as a function of (seed, n) and the number of chunks alone."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqzb.draws import Permutation


def samples_of_step(
    step: int, global_batch: int, n_chunks: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (epochs, chunks), each (global_batch): the samples of step `step`, counted from 0.

    Every epoch visits all chunks once, in its own order. A step may cross the end of an epoch.
    """
    samples = np.arange(step * global_batch, (step + 1) * global_batch)
    epochs, positions = np.divmod(samples, n_chunks)
    chunks = np.empty_like(positions)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        chunks[of_epoch] = _order(n_chunks, seed, int(epoch))[positions[of_epoch]]
    return epochs, chunks


@lru_cache(maxsize=4)
def _order(n_chunks: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n_chunks, seed, epoch)
