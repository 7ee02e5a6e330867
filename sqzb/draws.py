"""Random numbers as pure functions of a key: equal keys give equal draws, on any machine.

These functions have no state, so a checkpoint saves no state of a generator, and a run that resumes
at step n draws exactly the numbers that an uninterrupted run draws. All arithmetic is modulo 2**64
on numpy arrays.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = NDArray[np.uint64]


def hash64(*keys: ArrayLike) -> U64:
    """Mix the keys, broadcast against each other, into 64 well-spread bits each.

    Each key is absorbed by an xor and the finaliser of SplitMix64 (Steele, Lea and Flood 2014),
    which flips half of the output bits for one flipped input bit. The order of the keys matters.
    """
    return _absorb(np.array(0x9E3779B97F4A7C15, np.uint64), *keys)


def _absorb(state: U64, *keys: ArrayLike) -> U64:
    """Mix further keys into what `hash64` made of the keys before them."""
    with np.errstate(over="ignore"):
        for key in keys:
            state = _mix(
                (state ^ np.asarray(key).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            )
    return state


def _mix(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Return draws in [0, 1), one for each broadcast key, with 53 random bits."""
    return (hash64(*keys) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def below(n: ArrayLike, *keys: ArrayLike) -> NDArray[np.int64]:
    """Return integer draws in [0, n), one for each broadcast key; the bias is under n / 2**53."""
    scaled: NDArray[np.float64] = uniform(*keys) * np.asarray(n)
    return scaled.astype(np.int64)


class Permutation:
    """A random permutation of 0..n-1 that is computed, not stored.

    `permutation[i]` is element i. The permutation is a balanced Feistel network over the smallest
    even number of bits that holds n. A value that lands outside 0..n-1 passes through the network
    again (cycle walking, Black and Rogaway 2002), so every key gives a bijection.

    Raises:
        ValueError: n is below 1.
    """

    ROUNDS = 8

    def __init__(self, n: int, *keys: ArrayLike) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self.n = n
        self._half_bits = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._half_mask = np.uint64((1 << int(self._half_bits)) - 1)
        # Each round hashes its own key and half of a number: the key's part is the same for all
        # numbers.
        self._round_states = hash64(hash64(*keys, np.arange(self.ROUNDS)))

    def __getitem__(self, index: ArrayLike) -> NDArray[np.int64]:
        """Return the elements at `index`, an array of any shape with values in 0..n-1."""
        values = np.array(index, dtype=np.uint64)
        outside = np.ones(values.shape, dtype=bool)
        while outside.any():
            values[outside] = self._feistel(values[outside])
            outside = values >= self.n
        return values.astype(np.int64)

    def _feistel(self, values: U64) -> U64:
        left, right = values >> self._half_bits, values & self._half_mask
        for state in self._round_states:
            left, right = right, left ^ (_absorb(state, right) & self._half_mask)
        return (left << self._half_bits) | right
