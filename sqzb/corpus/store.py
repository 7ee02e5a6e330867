"""A corpus on disk: text as tokens, once, and for each sequence length a table of its chunks.

The tokens lie in shards, `shards/NAME.safetensors`, which hold, over all their documents one behind the other,
    tokens      (n_tokens)     token numbers without special tokens, 16 bits wide where the vocabulary allows it
    sentences   (n_sentences)  where each sentence starts
    documents   (n_documents)  where each document starts
    keys        (n_documents)  64 bits of a hash of its cleaned text
    sizes       (n_documents)  bytes of its cleaned text
    bands       (n_documents, n_bands)  only if near duplicates are looked for
and beside each lies `chunks/NAME.safetensors` with, for every split and sequence length L,
    SPLIT_L     (n_chunks, 2)  where each chunk starts and ends in the shard's tokens
Where words begin follows from the tokens: a token that goes on with a word starts with ## in the vocabulary.
Both are read through the page cache, so that opening a corpus costs no memory.
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

from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.tokenizer import load_tokenizer

MANIFEST, SHARDS, CHUNKS = "manifest.json", "shards", "chunks"
TRAIN, HELDOUT = SPLITS = ("train", "heldout")
FORMAT = 2  # of the folder
DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {"U16": np.uint16, "U32": np.uint32, "U64": np.uint64}


class Chunk(NamedTuple):
    tokens: NDArray[np.unsignedinteger[Any]]  # (n), without special tokens
    boundaries: NDArray[np.int64]  # where sentences start inside the chunk, 0 left out; n is not one


class ChunkRows(NamedTuple):
    """Chunks as the rows of two arrays, filled up with zeros."""

    tokens: NDArray[np.unsignedinteger[Any]]  # (rows, the most tokens of a chunk)
    sizes: NDArray[np.int64]  # (rows): the tokens of each chunk
    boundaries: NDArray[np.int64]  # (rows, the most boundaries of a chunk, at least one)
    counts: NDArray[np.int64]  # (rows): the boundaries of each chunk


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with whole_file(path) as aside:
        aside.write_bytes(save(arrays))  # its save_file hides the errors of a full disk


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, mapped and not loaded, and no file kept open. UserError when the file is not whole."""
    try:
        with pa.memory_map(str(path)) as opened:
            mapped = np.frombuffer(opened.read_buffer(), np.uint8)
        header_size = int(mapped[:8].view(np.uint64)[0])
        header = json.loads(mapped[8 : 8 + header_size].tobytes())
        return {name: _view(mapped[8 + header_size :], entry) for name, entry in header.items()}
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The corpus file {path} is damaged or absent ({error}). {_verify(path.parent.parent)}"
        ) from error


def _arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    arrays = read_arrays(path)
    if missing := [name for name in names if name not in arrays]:
        raise UserError(f"The corpus file {path} has no {', '.join(missing)}. {_verify(path.parent.parent)}")
    return [arrays[name] for name in names]


def _verify(folder: Path) -> str:
    return f"`sqzb prepare-corpus --verify {folder}` names all such files and says how to rebuild them."


def _view(data: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[Any]:
    first, last = entry["data_offsets"]
    return data[first:last].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])


def relative(path: Path) -> str:
    """A shard's or table's name in the manifest."""
    return f"{path.parent.name}/{path.name}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """UserError when the folder holds no finished corpus."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        state = "has no" if folder.is_dir() else "does not exist: no"
        raise UserError(
            f"The corpus {folder} {state} {MANIFEST}. Prepare it first, with "
            f"`sqzb prepare-corpus RECIPE --output {folder}`."
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is damaged ({error}). Remove it and prepare the corpus again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{folder} was prepared by another version of sqzb. Prepare it again, in another folder.")
    return manifest


class Corpus:
    """A folder that prepare-corpus has finished. UserError when it is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    def split(self, split: str, length: int) -> "Chunks":
        """The chunks of one split and sequence length. UserError when the corpus was not cut to that length, or a
        file is not as long as it was."""
        lengths = self.manifest["sequence_lengths"]
        if length not in lengths:
            raise UserError(
                f"The corpus {self.folder} is not cut to length {length}, only to {', '.join(map(str, lengths))}. "
                "Add it to `sequence_lengths` in its recipe and prepare it again: the tokens are kept."
            )
        files = {self.folder / name: file["bytes"] for name, file in self.manifest["files"].items()}
        for path, due in files.items():
            size = path.stat().st_size if path.exists() else 0
            if size != due:
                raise UserError(
                    f"The corpus file {path} has {size:,} bytes and should have {due:,}. {_verify(self.folder)}"
                )
        shards, tables = ([path for path in files if path.parent.name == kind] for kind in (SHARDS, CHUNKS))
        return Chunks(shards, tables, f"{split}_{length}")


class Chunks:
    """All chunks of one split and length, numbered through the shards."""

    def __init__(self, shards: list[Path], tables: list[Path], table: str) -> None:
        texts = [_arrays(path, "tokens", "sentences") for path in shards]
        self._tokens, self._sentences = [tokens for tokens, _ in texts], [sentences for _, sentences in texts]
        self._bounds = [_arrays(path, table)[0] for path in tables]
        self._ends = np.cumsum([len(bounds) for bounds in self._bounds], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Chunk:
        tokens, _, boundaries, (count,) = self.rows(np.array([number]))
        return Chunk(tokens[0], boundaries[0, :count])

    def sizes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n) tokens of the chunks `numbers`, from their tables alone. IndexError where there is no such chunk."""
        _, tokens = self._places(numbers)
        sizes: NDArray[np.int64] = tokens[:, 1] - tokens[:, 0]
        return sizes

    def rows(self, numbers: NDArray[np.int64]) -> ChunkRows:
        """The chunks `numbers`. IndexError where there is no such chunk."""
        rows_of, tokens = self._places(numbers)
        sentences = np.empty_like(tokens)  # where each chunk starts and ends among the sentences of its shard
        for shard, rows in rows_of.items():
            starts = self._sentences[shard]
            # Numbers of another type would make numpy convert all sentences each time.
            sentences[rows] = np.searchsorted(starts, (tokens[rows] + (1, 0)).astype(starts.dtype))
        ids, sizes = _gather(self._tokens, rows_of, tokens)
        firsts, counts = _gather(self._sentences, rows_of, sentences)
        inside = np.arange(firsts.shape[1]) < counts[:, None]
        return ChunkRows(ids, sizes, np.where(inside, firsts - tokens[:, :1], 0), counts)

    def _places(self, numbers: NDArray[np.int64]) -> tuple[dict[int, NDArray[np.int64]], NDArray[np.int64]]:
        """Which of the chunks lie in each shard, and where each starts and ends among its shard's tokens, (n, 2)."""
        shards = np.searchsorted(self._ends, numbers, side="right")
        rows_of = {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards)}
        tokens = np.empty((len(numbers), 2), np.int64)
        for shard, rows in rows_of.items():
            tokens[rows] = self._bounds[shard][numbers[rows] - self._ends[shard] + len(self._bounds[shard])]
        return rows_of, tokens


def _gather(
    arrays: list[NDArray[Any]], rows_of: dict[int, NDArray[np.int64]], bounds: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A range of its array for each row, filled up with zeros, and its size."""
    sizes = bounds[:, 1] - bounds[:, 0]
    places = np.arange(max(1, sizes.max(initial=0)))
    inside = places < sizes[:, None]
    found = np.zeros(inside.shape, arrays[0].dtype)
    for shard, rows in rows_of.items():
        found[rows] = arrays[shard][np.where(inside[rows], bounds[rows, :1] + places, 0)]
    return found * inside, sizes
