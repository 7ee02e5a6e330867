"""Near duplicates: documents that share most of their word 5-grams.

The method is MinHash (Broder 1997) with bands.
"""

import hashlib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb.draws import U64
from sqzb.errors import UserError

PERMUTATIONS = 128
WORDS = 5
AT_ONCE = 100_000  # n-grams in memory


class Bands:
    """MinHash bands: two documents whose Jaccard similarity exceeds `threshold` share a band.

    A signature of `PERMUTATIONS` hashes is divided into b bands of r hashes. Documents with
    similarity s share a band with probability 1 - (1 - s^r)^b, which rises around (1/b)^(1/r).
    r is chosen so that this value is nearest the threshold.

    Raises:
        UserError: the package rensa is not installed.
    """

    def __init__(self, threshold: float, seed: int) -> None:
        try:
            from rensa import RMinHash
        except ImportError as error:
            raise UserError(
                "near_duplicates needs the package rensa: pip install 'sqzb[dedup]'."
            ) from error
        self._minhash: Any = RMinHash
        self._seed = seed

        def distance(rows: int) -> float:
            bands = PERMUTATIONS // rows
            similarity: float = (1 / bands) ** (1 / rows)
            return abs(similarity - threshold)

        # Of PERMUTATIONS hashes, the ones after the last whole band are unused.
        self._rows = min(range(1, PERMUTATIONS + 1), key=distance)
        self._n_bands = PERMUTATIONS // self._rows

    def of(self, texts: list[str]) -> U64:
        """Return a hash of each band of each text, (n, n_bands)."""
        bands = [self._bands_of(text) for text in texts]
        return np.array(bands, np.uint64).reshape(len(texts), self._n_bands)

    def _bands_of(self, text: str) -> list[int]:
        words = re.findall(r"\w+", text.lower())
        end = max(1, len(words) - WORDS + 1)
        signature = self._minhash(num_perm=PERMUTATIONS, seed=self._seed)
        # A signature is a minimum, so the n-grams may come in parts. All of a long document would
        # take many times its memory.
        for first in range(0, end, AT_ONCE):
            starts = range(first, min(first + AT_ONCE, end))
            signature.update([" ".join(words[start : start + WORDS]) for start in starts])

        used = np.array(signature.digest(), np.uint32)[: self._n_bands * self._rows]
        return [_hash(band) for band in used.reshape(self._n_bands, self._rows)]


def _hash(band: NDArray[np.uint32]) -> int:
    """Return 64 bits of a hash of a band."""
    return int.from_bytes(hashlib.blake2b(band.tobytes(), digest_size=8).digest(), "big")
