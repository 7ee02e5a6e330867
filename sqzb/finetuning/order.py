"""The examples of each batch, as a function of the seed, the epoch and the examples' lengths."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.draws import Permutation

POOL = 32  # batches whose examples are sorted by length together; more would be less random


def batches_in(examples: int, batch: int) -> int:
    """Return the number of batches of an epoch, the last of which may be smaller."""
    return -(-examples // batch)


class Order:
    """The batches of a training set, each of examples of similar lengths, to need little padding.

    lengths: (examples), tokens of each example.
    batch: examples of a batch.
    """

    def __init__(self, lengths: ArrayLike, batch: int, seed: int) -> None:
        self._lengths, self._batch, self._seed = np.asarray(lengths), batch, seed
        self.batches_per_epoch = batches_in(len(self._lengths), batch)
        self._of_epoch = lru_cache(maxsize=2)(self._make)

    def rows_of_step(self, step: int) -> NDArray[np.int64]:
        """Return the examples of step `step` (from 0); an epoch's last batch may be smaller."""
        epoch, within = divmod(step, self.batches_per_epoch)
        return self._of_epoch(epoch)[within * self._batch : (within + 1) * self._batch]

    def _make(self, epoch: int) -> NDArray[np.int64]:
        """Return the epoch's examples, batch by batch.

        A random order of all examples is split into pools. Each pool is sorted by length and split
        into batches, and all batches are put in random order. The examples of the last, smaller
        batch are the end of the first order, so their lengths are random too.
        """
        n = len(self._lengths)
        whole = n // self._batch
        rows, left = np.split(
            Permutation(n, self._seed, epoch)[np.arange(n)], [whole * self._batch]
        )
        pools = np.arange(len(rows)) // (POOL * self._batch)
        batches = rows[np.lexsort((self._lengths[rows], pools))].reshape(whole, self._batch)
        places = Permutation(max(1, whole), self._seed, epoch, POOL)[np.arange(whole)]
        return np.concatenate([batches[places].ravel(), left])
