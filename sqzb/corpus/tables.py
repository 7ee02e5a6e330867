"""Stage two: the choice of documents, and for each sequence length the table of their chunks.

Only stage two knows the documents of all shards. It changes no file of stage one, so another
sequence length or held-out share needs no new reading of text.
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

KEYS_AT_ONCE = 4_000_000  # keys to sort in memory
DUPLICATE, NEAR_DUPLICATE = "duplicates", "near duplicates"


class Table(NamedTuple):
    """The facts about a written table that the manifest needs."""

    bytes: int
    sha256: str
    documents: dict[str, int]  # by split
    frequencies: NDArray[np.int64]  # (n_splits, vocabulary) occurrences of each token
    chunks: dict[int, dict[str, int]]  # by length and split
    chunk_tokens: dict[int, dict[str, int]]  # by length and split


class DroppedDocuments(NamedTuple):
    """Documents of a shard that a rule drops."""

    flags: Flags  # (n_documents) True for each document that is dropped
    documents: int
    bytes: int


Repeated = dict[str, dict[str, DroppedDocuments]]  # by rule and name of the shard


def table_path(folder: Path, name: str) -> Path:
    """Return the path of a shard's table."""
    return folder / CHUNKS / f"{name}.safetensors"


# Duplicates


def find_repeated(folder: Path, names: Sequence[str], recipe: CorpusRecipe) -> Repeated:
    """Find the documents that repeat an earlier document, of the same shard or another.

    A document that is a duplicate is not counted as a near duplicate too.
    """
    shards = [shard_path(folder, name) for name in names]
    none: list[Flags] = [np.zeros(len(_keys(shard)), bool) for shard in shards]

    flags_by_rule: dict[str, list[Flags]] = {}
    if recipe.drop_duplicates:
        flags_by_rule[DUPLICATE] = _repeated(shards, _keys)
    if recipe.near_duplicates is not None:
        duplicate = flags_by_rule.get(DUPLICATE, none)
        near = _near_duplicates(shards)
        flags_by_rule[NEAR_DUPLICATE] = [
            alike & ~equal for alike, equal in zip(near, duplicate, strict=True)
        ]

    repeated: Repeated = {}
    for rule, flags_of_shards in flags_by_rule.items():
        repeated[rule] = {}
        for name, shard, flags in zip(names, shards, flags_of_shards, strict=True):
            repeated[rule][name] = _dropped_documents(shard, flags)
    return repeated


def _dropped_documents(shard: Path, flags: Flags) -> DroppedDocuments:
    sizes = read_arrays(shard)["sizes"]
    return DroppedDocuments(flags, int(flags.sum()), int(sizes[flags].sum()))


def _keys(shard: Path) -> U64:
    return read_arrays(shard)["keys"]


def _near_duplicates(shards: Sequence[Path]) -> list[Flags]:
    """Return for each shard which of its documents share a band with an earlier document."""
    n_bands = read_arrays(shards[0])["bands"].shape[1]
    near: list[Flags] = [np.zeros(len(_keys(shard)), bool) for shard in shards]
    for band in range(n_bands):
        for flags, repeated in zip(near, _repeated(shards, _band_reader(band)), strict=True):
            flags |= repeated
    return near


def _band_reader(band: int) -> Callable[[Path], U64]:
    """Return a function that reads one band of a shard."""

    def read(shard: Path) -> U64:
        return read_arrays(shard)["bands"][:, band]

    return read


def _repeated(shards: Sequence[Path], column: Callable[[Path], U64]) -> list[Flags]:
    """Return for each shard which values of a column occur before, there or in an earlier shard.

    A pass sorts the values with one remainder, so that about KEYS_AT_ONCE values are in memory at
    a time. Equal values have equal remainders and meet in the same pass.
    """
    sizes = [len(column(shard)) for shard in shards]
    flags = np.zeros(sum(sizes), bool)
    passes = np.uint64(sum(sizes) // KEYS_AT_ONCE + 1)

    for remainder in range(int(passes)):
        values, positions = [], []
        start = 0
        for shard in shards:
            of_shard = column(shard)
            within = np.flatnonzero(of_shard % passes == remainder)
            values.append(of_shard[within])
            positions.append(start + within)
            start += len(of_shard)

        all_values = np.concatenate(values)
        is_first = np.zeros(len(all_values), bool)
        is_first[np.unique(all_values, return_index=True)[1]] = True
        flags[np.concatenate(positions)[~is_first]] = True

    return np.split(flags, np.cumsum(sizes)[:-1])


# Tables


def write_table(
    folder: Path,
    recipe: CorpusRecipe,
    name: str,
    weight: float,
    vocab_size: int,
    repeated: Sequence[Flags],
) -> Table:
    """Cut the documents of a shard to every sequence length, and write their table.

    In the table for training, a document's chunks occur as often as `weight`, the weight of the
    shard's source, says. Documents that any of `repeated` flags are left out.
    """
    shard = read_arrays(shard_path(folder, name))
    keys, documents, tokens = shard["keys"], shard["documents"], shard["tokens"]

    dropped = np.zeros(len(keys), bool)
    for flags in repeated:
        dropped |= flags
    heldout = keys < np.uint64(recipe.heldout * 2.0**64)
    # By split, how often each document is taken.
    taken = {
        TRAIN: np.where(heldout | dropped, 0, copies(weight, recipe.seed, keys)),
        HELDOUT: np.where(heldout & ~dropped, 1, 0),
    }

    arrays: dict[str, NDArray[Any]] = {}
    chunks: dict[int, dict[str, int]] = {}
    chunk_tokens: dict[int, dict[str, int]] = {}
    for length in recipe.sequence_lengths:
        cut = cut_all(
            shard["sentences"],
            documents,
            keys,
            len(tokens),
            length,
            recipe.short_seq_prob,
            recipe.seed,
        )
        chunks[length], chunk_tokens[length] = {}, {}
        for split in SPLITS:
            bounds = np.repeat(cut.bounds, taken[split][cut.documents], axis=0)
            arrays[f"{split}_{length}"] = bounds
            chunks[length][split] = len(bounds)
            chunk_tokens[length][split] = _tokens_in(bounds)

    path = table_path(folder, name)
    write_arrays(path, arrays)

    sizes = np.diff(np.append(documents, len(tokens)).astype(np.int64))
    frequencies = []
    for split in SPLITS:
        times_taken = np.repeat(taken[split], sizes)
        frequencies.append(np.bincount(tokens, times_taken, vocab_size))
    return Table(
        bytes=path.stat().st_size,
        sha256=sha256(path),
        documents={split: int(taken[split].sum()) for split in SPLITS},
        frequencies=np.array(frequencies).astype(np.int64),
        chunks=chunks,
        chunk_tokens=chunk_tokens,
    )


def _tokens_in(bounds: NDArray[np.uint32]) -> int:
    """Count the tokens of chunks, from their bounds, (n, 2)."""
    return int((bounds[:, 1].astype(np.int64) - bounds[:, 0]).sum())
