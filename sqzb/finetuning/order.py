"""Which examples make up a batch: a function of the seed, the epoch and the examples' lengths, and of nothing else."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqzb.draws import Permutation

POOL = 32  # batches: what is sorted by length together, so that their makeup and order stay random


def batches_in(examples: int, batch: int) -> int:
    """Return the number of batches of an epoch, whose last one may be smaller."""
    return -(-examples // batch)


class Order:
    """The batches of a training set, which are of examples of similar lengths, as a batch is padded to its longest.

    lengths (examples): tokens of each; batch: examples in one.
    """

    def __init__(self, lengths: ArrayLike, batch: int, seed: int) -> None:
        self._lengths, self._batch, self._seed = np.asarray(lengths), batch, seed
        self.batches_per_epoch = batches_in(len(self._lengths), batch)
        self._of_epoch = lru_cache(maxsize=2)(self._make)

    def rows_of_step(self, step: int) -> NDArray[np.int64]:
        """The examples of step `step` (from 0): each once in an epoch, whose last batch may be smaller."""
        epoch, within = divmod(step, self.batches_per_epoch)
        return self._of_epoch(epoch)[within * self._batch : (within + 1) * self._batch]

    def _make(self, epoch: int) -> NDArray[np.int64]:
        """The epoch's examples, batch by batch.

        A keyed order of all, cut into pools; each pool by length, cut into batches; a keyed order of all batches. What
        is left over is the end of the first order, so that it is no likelier to be of any length.
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
