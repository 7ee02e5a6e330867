"""A corpus on disk: tokens once, and for each sequence length where its chunks start.

A shard is one safetensors file with, over all its documents one after the other,
    tokens      (n_tokens)      token numbers without special tokens, 16 bits wide where the vocabulary allows it
    sentences   (n_sentences)   where each sentence starts
    chunks_L    (n_chunks + 1)  where each chunk of sequence length L starts, and the end of the last
and is read through the page cache, so that opening a corpus costs no memory.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.tokenizer import load_tokenizer

MANIFEST = "manifest.json"
TRAIN, HELDOUT = SPLITS = ("train", "heldout")


class Chunk(NamedTuple):
    tokens: NDArray[np.unsignedinteger[Any]]  # (n), without special tokens
    boundaries: NDArray[np.int64]  # where sentences start inside the chunk, 0 left out; n is not one


def write_shard(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with whole_file(path) as aside:
        save_file(arrays, aside)


def read_shard(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a shard, mapped and not loaded. UserError when the file is not whole."""
    try:
        mapped = np.memmap(path, mode="r")
        header_size = int(mapped[:8].view(np.uint64)[0])
        header = json.loads(mapped[8 : 8 + header_size].tobytes())
        return {name: _view(mapped[8 + header_size :], entry) for name, entry in header.items()}
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The corpus shard {path} is damaged or absent ({error}). Prepare the corpus again.") from error


def _view(data: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[Any]:
    first, last = entry["data_offsets"]
    dtype = {"U16": np.uint16, "U32": np.uint32}[entry["dtype"]]
    return data[first:last].view(dtype).reshape(entry["shape"])


class Corpus:
    """A folder that prepare-corpus has finished. UserError when it is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            state = "has no" if self.folder.is_dir() else "does not exist: no"
            raise UserError(
                f"The corpus {self.folder} {state} {MANIFEST}. Prepare it first, with "
                f"`sqzb prepare-corpus RECIPE --output {self.folder}`."
            ) from None
        except ValueError as error:
            raise UserError(f"{self.folder / MANIFEST} is damaged ({error}). Prepare the corpus again.") from error

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    def split(self, split: str, length: int) -> "Chunks":
        """The chunks of one split and sequence length. UserError when the corpus was not cut to that length."""
        lengths = self.manifest["sequence_lengths"]
        if length not in lengths:
            raise UserError(
                f"The corpus {self.folder} is not cut to length {length}, only to {', '.join(map(str, lengths))}. "
                "Prepare it with that length in `sequence_lengths`."
            )
        return Chunks(
            [self.folder / split / f"{shard}.safetensors" for shard in self.manifest["shards"][split]], length
        )


class Chunks:
    """All chunks of one length, numbered through the shards."""

    def __init__(self, shards: list[Path], length: int) -> None:
        opened = [read_shard(shard) for shard in shards]
        wanted = "tokens", "sentences", f"chunks_{length}"
        for path, shard in zip(shards, opened, strict=True):
            if missing := [name for name in wanted if name not in shard]:
                raise UserError(f"The corpus shard {path} has no {', '.join(missing)}. Prepare the corpus again.")
        self._tokens, self._sentences, self._starts = ([shard[name] for shard in opened] for name in wanted)
        self._ends = np.cumsum([len(starts) - 1 for starts in self._starts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Chunk:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        within = number - (int(self._ends[shard - 1]) if shard else 0)
        start, end = (int(bound) for bound in self._starts[shard][within : within + 2])
        sentences = self._sentences[shard]
        first, last = np.searchsorted(sentences, (start + 1, end))
        return Chunk(self._tokens[shard][start:end], sentences[first:last].astype(np.int64) - start)
