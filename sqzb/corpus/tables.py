"""Stage two: which documents are taken, and for each sequence length the table of their chunks.

Only here it is known what all shards hold. Nothing of stage one is changed, so that another sequence length or
held-out share costs no new reading of text.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.corpus.chunks import cut_all
from sqzb.corpus.shards import shard_path
from sqzb.corpus.store import CHUNKS, HELDOUT, SPLITS, TRAIN, read_arrays, write_arrays
from sqzb.corpus.text import copies
from sqzb.draws import U64
from sqzb.files import sha256
from sqzb.recipe import CorpusRecipe

Flags = NDArray[np.bool_]

KEYS_AT_ONCE = 4_000_000  # sorted in memory
DUPLICATE, NEAR_DUPLICATE = "duplicates", "near duplicates"


class Table(NamedTuple):
    """What is known of a written table."""

    bytes: int
    sha256: str
    documents: dict[str, int]  # by split
    frequencies: NDArray[np.int64]  # (splits, vocabulary): how often each token comes
    chunks: dict[int, dict[str, int]]  # by length and split
    chunk_tokens: dict[int, dict[str, int]]


class DroppedDocuments(NamedTuple):
    """Documents of a shard that a rule drops."""

    flags: Flags  # (n_documents)
    documents: int
    bytes: int


Repeated = dict[str, dict[str, DroppedDocuments]]  # by rule and name of the shard


def table_path(folder: Path, name: str) -> Path:
    return folder / CHUNKS / f"{name}.safetensors"


def find_repeated(folder: Path, names: Sequence[str], recipe: CorpusRecipe) -> Repeated:
    """The documents that stand in an earlier place already, in this shard or another."""
    shards = [shard_path(folder, name) for name in names]
    nothing: list[Flags] = [np.zeros(len(read_arrays(shard)["keys"]), bool) for shard in shards]
    by_rule: dict[str, list[Flags]] = {}
    if recipe.drop_duplicates:
        by_rule[DUPLICATE] = _repeated(shards, lambda shard: read_arrays(shard)["keys"])
    if recipe.near_duplicates is not None:
        near = nothing
        for band in range(read_arrays(shards[0])["bands"].shape[1]):
            again = _repeated(shards, lambda shard, band=band: read_arrays(shard)["bands"][:, band])  # type: ignore[misc]
            near = [before | new for before, new in zip(near, again, strict=True)]
        equal = by_rule.get(DUPLICATE, nothing)
        by_rule[NEAR_DUPLICATE] = [new & ~old for new, old in zip(near, equal, strict=True)]
    return {
        rule: {name: _dropped_documents(shard, found) for name, shard, found in zip(names, shards, flags, strict=True)}
        for rule, flags in by_rule.items()
    }


def _dropped_documents(shard: Path, flags: Flags) -> DroppedDocuments:
    return DroppedDocuments(flags, int(flags.sum()), int(read_arrays(shard)["sizes"][flags].sum()))


def _repeated(shards: Sequence[Path], column: Callable[[Path], U64]) -> list[Flags]:
    """Which values came before, in this shard or another; as many at once as fit in memory, parted by value."""
    sizes = [len(column(shard)) for shard in shards]
    flags = np.zeros(sum(sizes), bool)
    passes = np.uint64(sum(sizes) // KEYS_AT_ONCE + 1)
    for number in range(int(passes)):
        values, places = [], []
        start = 0
        for shard in shards:
            all_values = column(shard)
            within = np.flatnonzero(all_values % passes == number)
            values.append(all_values[within])
            places.append(start + within)
            start += len(all_values)
        together, where = np.concatenate(values), np.concatenate(places)
        first = np.zeros(len(together), bool)
        first[np.unique(together, return_index=True)[1]] = True
        flags[where[~first]] = True
    return np.split(flags, np.cumsum(sizes)[:-1])


def write_table(
    folder: Path, recipe: CorpusRecipe, name: str, weight: float, vocab_size: int, repeated: Sequence[Flags]
) -> Table:
    """Cut the documents of a shard, but those `repeated`, to every length; a document's chunks stand as often in the
    table for training as its source's weight says."""
    shard = read_arrays(shard_path(folder, name))
    keys, documents, tokens = shard["keys"], shard["documents"], shard["tokens"]
    heldout = keys < np.uint64(recipe.heldout * 2.0**64)
    dropped = np.any([np.zeros(len(keys), bool), *repeated], axis=0)
    taken = {
        TRAIN: np.where(heldout | dropped, 0, copies(weight, recipe.seed, keys)),
        HELDOUT: np.where(heldout & ~dropped, 1, 0),
    }
    arrays: dict[str, NDArray[Any]] = {}
    for length in recipe.sequence_lengths:
        chunks = cut_all(shard["sentences"], documents, keys, len(tokens), length, recipe.short_seq_prob, recipe.seed)
        for split in SPLITS:
            arrays[f"{split}_{length}"] = np.repeat(chunks.bounds, taken[split][chunks.documents], axis=0)
    path = table_path(folder, name)
    write_arrays(path, arrays)
    sizes = np.diff(np.append(documents, len(tokens)).astype(np.int64))
    frequencies = [np.bincount(tokens, np.repeat(taken[split], sizes), vocab_size) for split in SPLITS]
    return Table(
        path.stat().st_size,
        sha256(path),
        {split: int(taken[split].sum()) for split in SPLITS},
        np.array(frequencies).astype(np.int64),
        {n: {split: len(arrays[f"{split}_{n}"]) for split in SPLITS} for n in recipe.sequence_lengths},
        {n: {split: _tokens_in(arrays[f"{split}_{n}"]) for split in SPLITS} for n in recipe.sequence_lengths},
    )


def _tokens_in(table: NDArray[np.uint32]) -> int:
    return int((table[:, 1].astype(np.int64) - table[:, 0]).sum())
