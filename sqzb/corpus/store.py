"""A corpus on disk: text as tokens, stored once, and for each sequence length a table of chunks.

The tokens are in shards. `shards/NAME.safetensors` holds, of consecutive documents:
    tokens      (n_tokens)     token numbers, no special tokens; 16 bits if the vocabulary fits
    sentences   (n_sentences)  token offset of each sentence's start
    documents   (n_documents)  token offset of each document's start
    keys        (n_documents)  64 bits of a hash of each document's cleaned text
    sizes       (n_documents)  bytes of each document's cleaned text
    bands       (n_documents, n_bands)  only if near duplicates are dropped
`chunks/NAME.safetensors` holds the shard's table, for every split and sequence length L:
    SPLIT_L     (n_chunks, 2)  token offsets of each chunk's start and end in the shard
Where words start follows from the tokens: a token that continues a word has ## in the vocabulary.
Both files are read through the page cache, so an open corpus takes no memory of its own.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

from sqzb.console import counted
from sqzb.corpus.hashes import HashCheck
from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.tokenizer import load_tokenizer

MANIFEST, SHARDS, CHUNKS = "manifest.json", "shards", "chunks"
TRAIN, HELDOUT = SPLITS = ("train", "heldout")
FORMAT = 2  # of the folder
DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
}


class Chunk(NamedTuple):
    """A chunk, without special tokens."""

    tokens: NDArray[np.unsignedinteger[Any]]  # (n)
    boundaries: NDArray[np.int64]  # offsets of the sentences' starts, without 0 and n


class ChunkRows(NamedTuple):
    """Chunks as the rows of two arrays, padded with zeros."""

    tokens: NDArray[np.unsignedinteger[Any]]  # (n_rows, most tokens of a chunk)
    sizes: NDArray[np.int64]  # (n_rows) tokens of each chunk
    boundaries: NDArray[np.int64]  # (n_rows, most boundaries of a chunk, at least 1)
    counts: NDArray[np.int64]  # (n_rows) boundaries of each chunk


# Files


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays to a safetensors file, which appears whole or not at all."""
    with whole_file(path) as aside:
        # The save_file of safetensors hides the errors of a full disk.
        aside.write_bytes(save(arrays))


# Errors that a damaged file raises.
_DAMAGE = (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, mapped into memory and not loaded. No file is kept open.

    Raises:
        UserError: the file is damaged or missing.
    """
    try:
        with pa.memory_map(str(path)) as opened:
            mapped = np.frombuffer(opened.read_buffer(), np.uint8)
        header_size = int(mapped[:8].view(np.uint64)[0])
        header_end = 8 + header_size
        header = json.loads(mapped[8:header_end].tobytes())
        data = mapped[header_end:]
        return {name: _view(data, entry) for name, entry in header.items()}
    except _DAMAGE as error:
        advice = _verify(path.parent.parent)
        raise UserError(
            f"The corpus file {path} is damaged or missing ({error}). {advice}"
        ) from error


def _view(data: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[Any]:
    """Return the array that an entry of a safetensors header describes."""
    start, stop = entry["data_offsets"]
    return data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Return the named arrays of a file.

    Raises:
        UserError: the file is damaged or missing, or lacks an array.
    """
    arrays = read_arrays(path)
    if missing := [name for name in names if name not in arrays]:
        advice = _verify(path.parent.parent)
        raise UserError(f"The corpus file {path} has no {', '.join(missing)}. {advice}")
    return [arrays[name] for name in names]


def _verify(folder: Path) -> str:
    """Return the advice for a damaged corpus."""
    command = f"sqzb prepare-corpus --verify {folder}"
    return f"`{command}` names all such files and says how to rebuild them."


def relative(path: Path) -> str:
    """Return the name of a shard, record or table in the manifest."""
    return f"{path.parent.name}/{path.name}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished corpus.

    Raises:
        UserError: the folder holds no finished corpus of this version, or a damaged manifest.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        state = f"has no {MANIFEST}" if folder.is_dir() else "does not exist"
        raise UserError(
            f"The corpus {folder} {state}. Prepare it with `sqzb prepare-corpus RECIPE --output "
            f"{folder}`. If it was moved, give its new folder (pretrain: corpus=FOLDER)."
        ) from None
    except (ValueError, RecursionError) as error:
        advice = "Remove it and prepare the corpus again."
        raise UserError(f"{folder / MANIFEST} is damaged ({error}). {advice}") from error

    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        advice = "Prepare the corpus again, in another folder."
        raise UserError(f"{folder} was prepared by another version of sqzb. {advice}")
    return manifest


# Reading


class Corpus:
    """A finished corpus.

    Raises:
        UserError: the folder holds none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus."""
        return load_tokenizer(self.folder)

    @cached_property
    def hash_check(self) -> HashCheck:
        """The comparison of shards and tables with their hashes, which begins at first use."""
        read = {
            name: file
            for name, file in self.manifest["files"].items()
            if Path(name).parent.name in (SHARDS, CHUNKS)
        }
        return HashCheck(self.folder, read, _verify(self.folder))

    def split(self, split: str, length: int) -> "Chunks":
        """Return the chunks of one split and sequence length.

        Raises:
            UserError: the corpus is not cut to that length, or the size of a file has changed.
        """
        lengths = self.manifest["sequence_lengths"]
        if length not in lengths:
            raise UserError(
                f"The corpus {self.folder} is not cut to length {length}, "
                f"only to {', '.join(map(str, lengths))}. "
                "Add the length to sequence_lengths in the corpus's recipe and run prepare-corpus "
                "again: the text is not read again."
            )

        shards: list[Path] = []
        tables: list[Path] = []
        for name, file in self.manifest["files"].items():
            path = self.folder / name
            self._check_size(path, file["bytes"])
            if path.parent.name == SHARDS:
                shards.append(path)
            elif path.parent.name == CHUNKS:
                tables.append(path)
        return Chunks(shards, tables, f"{split}_{length}")

    def _check_size(self, path: Path, due: int) -> None:
        size = path.stat().st_size if path.exists() else 0
        if size != due:
            problem = f"has {counted(size, 'byte')} and should have {due:,}"
            raise UserError(f"The corpus file {path} {problem}. {_verify(self.folder)}")


class Chunks:
    """The chunks of one split and length, numbered through all shards.

    Args:
        shards: paths of the shards.
        tables: paths of their tables.
        table: name of the split and length in the tables.
    """

    def __init__(self, shards: list[Path], tables: list[Path], table: str) -> None:
        self._tokens: list[NDArray[Any]] = []
        self._sentences: list[NDArray[Any]] = []
        for path in shards:
            tokens, sentences = _arrays(path, "tokens", "sentences")
            self._tokens.append(tokens)
            self._sentences.append(sentences)
        self._bounds = [_arrays(path, table)[0] for path in tables]
        # Of each shard, the number of the chunk after its last one.
        self._ends = np.cumsum([len(bounds) for bounds in self._bounds], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Chunk:
        tokens, _, boundaries, (count,) = self.rows(np.array([number]))
        return Chunk(tokens[0], boundaries[0, :count])

    def sizes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens of each of the chunks `numbers`, (n), from their tables alone.

        Raises:
            IndexError: there is no such chunk.
        """
        _, bounds = self._locate(numbers)
        sizes: NDArray[np.int64] = bounds[:, 1] - bounds[:, 0]
        return sizes

    def rows(self, numbers: NDArray[np.int64]) -> ChunkRows:
        """Return the chunks `numbers`.

        Raises:
            IndexError: there is no such chunk, or the files are damaged.
        """
        rows_of, bounds = self._locate(numbers)

        # By chunk, the range of the shard's sentences that start in the chunk, but not with it.
        sentence_bounds = np.empty_like(bounds)
        for shard, rows in rows_of.items():
            starts = self._sentences[shard]
            # Numbers of another type would make numpy convert all sentences each time.
            first_and_end = (bounds[rows] + (1, 0)).astype(starts.dtype)
            sentence_bounds[rows] = np.searchsorted(starts, first_and_end)
            if (np.diff(sentence_bounds[rows]) < 0).any():
                raise IndexError("the sentences of a shard are not in order")  # it is damaged

        tokens, sizes = _gather(self._tokens, rows_of, bounds)
        offsets, counts = _gather(self._sentences, rows_of, sentence_bounds)
        is_boundary = np.arange(offsets.shape[1]) < counts[:, None]
        boundaries = np.where(is_boundary, offsets - bounds[:, :1], 0)
        return ChunkRows(tokens, sizes, boundaries, counts)

    def _locate(
        self,
        numbers: NDArray[np.int64],
    ) -> tuple[dict[int, NDArray[np.int64]], NDArray[np.int64]]:
        """Return where the chunks `numbers` are.

        Returns:
            By shard, the indices in `numbers` of the shard's chunks; and of each chunk, the
            offsets of its start and end among its shard's tokens, (n, 2).
        """
        shards = np.searchsorted(self._ends, numbers, side="right")
        rows_of = {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards)}
        bounds = np.empty((len(numbers), 2), np.int64)
        for shard, rows in rows_of.items():
            of_shard = self._bounds[shard]
            bounds[rows] = of_shard[numbers[rows] - self._ends[shard] + len(of_shard)]
            starts, ends = bounds[rows].T
            if (starts < 0).any() or (ends < starts).any() or ends.max() > len(self._tokens[shard]):
                raise IndexError("a chunk lies outside of its shard")  # of a damaged table
        return rows_of, bounds


def _gather(
    arrays: list[NDArray[Any]],
    rows_of: dict[int, NDArray[np.int64]],
    bounds: NDArray[np.int64],
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return a range of a shard's array for each row, padded with zeros, and the ranges' sizes.

    Args:
        arrays: an array for each shard.
        rows_of: by shard, the rows whose ranges are in its array.
        bounds: (n_rows, 2) start and end of each range.
    """
    sizes = bounds[:, 1] - bounds[:, 0]
    columns = np.arange(max(1, sizes.max(initial=0)))
    is_inside = columns < sizes[:, None]
    gathered = np.zeros(is_inside.shape, arrays[0].dtype)
    for shard, rows in rows_of.items():
        indices = np.where(is_inside[rows], bounds[rows, :1] + columns, 0)
        gathered[rows] = arrays[shard][indices]
    return gathered * is_inside, sizes
