"""Stage one: a unit of text to shards of tokens, each with a record that is written last.

A shard follows from its unit and the recipe alone. A unit that was stopped goes on behind its last recorded shard, and
one whose shard was lost makes just that one again.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb.corpus.encode import Encoder
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.near import Bands
from sqzb.corpus.sources import Unit, documents
from sqzb.corpus.store import SHARDS, write_arrays
from sqzb.corpus.text import Cleaner, Document
from sqzb.errors import UserError
from sqzb.files import sha256, write_json
from sqzb.recipe import CorpusRecipe
from sqzb.tokenizer import load_tokenizer

SHARD_TOKENS = 8_000_000  # in a shard, at least; about 35 MB of English
BATCH_CHARACTERS = 1_000_000  # tokenised at once
BAD_NAMED = 20  # in a record, and in the manifest

ShardRecord = dict[str, Any]
Counts = dict[str, dict[str, int]]  # by rule: documents and bytes


def shard_name(unit: int, part: int) -> str:
    return f"{unit:05d}-{part:03d}"


def shard_path(folder: Path, name: str) -> Path:
    return folder / SHARDS / f"{name}.safetensors"


def record_path(folder: Path, name: str) -> Path:
    return folder / SHARDS / f"{name}.json"


def read_record(folder: Path, name: str) -> ShardRecord | None:
    """What is known of a finished shard; None if it is not finished or no longer whole in size."""
    try:
        record: ShardRecord = json.loads(record_path(folder, name).read_text(encoding="utf-8"))
        return record if shard_path(folder, name).stat().st_size == record["bytes"] else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def records_of(folder: Path, unit: int) -> Iterator[tuple[str, ShardRecord | None]]:
    """The shards of a unit as far as they are finished, up to and with the first that is not."""
    for part in count():
        name = shard_name(unit, part)
        record = read_record(folder, name)
        yield name, record
        if record is None or record["last"]:
            return


def write_unit(folder: Path, recipe: CorpusRecipe, number: int, unit: Unit) -> None:
    """Make the shards of a unit that have no record.

    UserError when it has more bad documents than the recipe allows; what was finished before stays.
    """
    rows = _Rows(documents(unit, recipe.sources[unit.source]))
    writer = ShardWriter(folder, recipe, unit.source)
    at, last = 0, False
    for part in count():
        name = shard_name(number, part)
        record = read_record(folder, name)
        if record is None:
            rows.skip_to(at)
            record = writer.write(name, rows)
        at, last = record["documents_end"], record["last"]
        if last:
            return


class _Rows:
    """Documents with their number, one looked at ahead."""

    def __init__(self, rows: Iterator[str | UnreadableDocument]) -> None:
        self._rows = rows
        self._ahead: str | UnreadableDocument | None = None
        self.position = -1

    def skip_to(self, position: int) -> None:
        while self.position < position:
            self._ahead = next(self._rows, None)
            self.position += 1

    @property
    def ended(self) -> bool:
        return self._ahead is None

    def batch(self) -> list[str | UnreadableDocument]:
        """Some documents, at least one if there is one left."""
        found: list[str | UnreadableDocument] = []
        characters = 0
        while self._ahead is not None and characters < BATCH_CHARACTERS:
            found.append(self._ahead)
            characters += len(self._ahead) if isinstance(self._ahead, str) else 0
            self.skip_to(self.position + 1)
        return found


class ShardWriter:
    """The tools for one source in one process."""

    def __init__(self, folder: Path, recipe: CorpusRecipe, source: str) -> None:
        self._folder, self._recipe, self._source = folder, recipe, source
        self._encoder = Encoder(load_tokenizer(folder))
        self._bands = None if recipe.near_duplicates is None else Bands(recipe.near_duplicates, recipe.seed)

    def write(self, name: str, rows: _Rows) -> ShardRecord:
        """The shard of the documents from where `rows` stand."""
        cleaner = Cleaner(self._recipe, self._recipe.sources[self._source])
        kept = _Kept(self._encoder, self._bands)
        bad: list[str] = []
        while kept.n_tokens < SHARD_TOKENS and (batch := rows.batch()):
            bad += [f"{row.where} {row.why}" for row in batch if isinstance(row, UnreadableDocument)]
            check_bad(len(bad), bad, self._recipe)
            documents = (cleaner.document(row) for row in batch if isinstance(row, str))
            kept.add([document for document in documents if document is not None])
        path = shard_path(self._folder, name)
        write_arrays(path, kept.arrays())
        record = {
            "source": self._source,
            "documents_end": rows.position,
            "last": rows.ended,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
            "tokens": kept.n_tokens,
            "counts": cleaner.counts,
            "bad": {"documents": len(bad), "named": bad[:BAD_NAMED]},
        }
        write_json(record_path(self._folder, name), record)
        return record


class _Kept:
    """The documents of a shard, as they are gathered."""

    def __init__(self, encoder: Encoder, bands: Bands | None) -> None:
        self._encoder, self._bands = encoder, bands
        self.n_tokens = 0
        self._gathered: dict[str, list[NDArray[Any]]] = {}
        self.add([])

    def add(self, batch: list[Document]) -> None:
        tokens, lengths = self._encoder.encode([sentence for document in batch for sentence in document.sentences])
        offsets = self.n_tokens + np.append(0, np.cumsum(lengths))
        counts = np.array([len(document.sentences) for document in batch], np.int64)
        arrays = {
            "tokens": tokens,
            "sentences": offsets[:-1][lengths > 0].astype(np.uint32),
            "documents": offsets[np.cumsum(counts) - counts].astype(np.uint32),
            "keys": np.array([document.key for document in batch], np.uint64),
            "sizes": np.array([document.size for document in batch], np.uint32),
        }
        if self._bands is not None:
            arrays["bands"] = self._bands.of([" ".join(document.sentences) for document in batch])
        for name, array in arrays.items():
            self._gathered.setdefault(name, []).append(array)
        self.n_tokens += len(tokens)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate(parts) for name, parts in self._gathered.items()}


def check_bad(n: int, named: list[str], recipe: CorpusRecipe) -> None:
    """UserError when there are more bad documents than the recipe allows."""
    if n > recipe.max_bad_documents:
        listed = "".join(f"\n  {name}" for name in named[:3])
        raise UserError(
            f"{n:,} document{'s' * (n > 1)} cannot be read, and max_bad_documents allows {recipe.max_bad_documents:,}:"
            f"{listed}\nMend or remove them, or give a higher max_bad_documents to go on without. What is finished is "
            "kept."
        )
