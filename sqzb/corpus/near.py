"""Near duplicates: documents that share most of their word 5-grams, found by MinHash (Broder 1997) with bands."""

import hashlib
import re
from typing import Any

import numpy as np

from sqzb.draws import U64
from sqzb.errors import UserError

PERMUTATIONS = 128
WORDS = 5


class Bands:
    """Numbers of which two documents share at least one if they are about as alike as `threshold` (Jaccard).

    A signature of `PERMUTATIONS` hashes is parted into b bands of r: documents with similarity s share a band with
    probability 1 - (1 - s^r)^b, which rises around (1/b)^(1/r); r is chosen so that this lies nearest the threshold.
    """

    def __init__(self, threshold: float, seed: int) -> None:
        try:
            from rensa import RMinHash
        except ImportError as error:
            raise UserError("near_duplicates needs the package rensa: pip install 'sqzb[dedup]'.") from error
        self._minhash: Any = RMinHash
        self._seed = seed
        # Of PERMUTATIONS hashes, those beyond the last whole band are left out.
        n_bands = {rows: PERMUTATIONS // rows for rows in range(1, PERMUTATIONS + 1)}
        self._rows = min(n_bands, key=lambda rows: abs((1 / n_bands[rows]) ** (1 / rows) - threshold))
        self._n_bands = n_bands[self._rows]

    def of(self, texts: list[str]) -> U64:
        """(n, bands)"""
        bands = [self._of(text) for text in texts]
        return np.array(bands, np.uint64).reshape(len(texts), self._n_bands)

    def _of(self, text: str) -> list[int]:
        words = re.findall(r"\w+", text.lower())
        signature = self._minhash(num_perm=PERMUTATIONS, seed=self._seed)
        signature.update([" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))])
        digest = np.array(signature.digest(), np.uint32)[: self._n_bands * self._rows].reshape(-1, self._rows)
        hashes = (hashlib.blake2b(band.tobytes(), digest_size=8).digest() for band in digest)
        return [int.from_bytes(digest, "big") for digest in hashes]
