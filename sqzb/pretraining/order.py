"""Which chunks make up step n: a function of (seed, n) and the number of chunks, and of nothing else."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqzb.draws import Permutation


def samples_of_step(
    step: int, global_batch: int, n_chunks: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(epochs, chunks), each (global_batch): what step `step` (from 0) trains on.

    Every epoch goes through all chunks once, in an order of its own; a step may reach over the end
    of one.
    """
    samples = np.arange(step * global_batch, (step + 1) * global_batch)
    epochs, places = np.divmod(samples, n_chunks)
    chunks = np.empty_like(places)
    for epoch in np.unique(epochs):
        chunks[epochs == epoch] = _order(n_chunks, seed, int(epoch))[places[epochs == epoch]]
    return epochs, chunks


@lru_cache(maxsize=4)
def _order(n_chunks: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n_chunks, seed, epoch)
