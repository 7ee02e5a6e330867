"""Stage one: a unit of text becomes shards of tokens, each with a record that is written last.

A shard is a function of its unit and the recipe alone. Work on an interrupted unit resumes after
its last recorded shard. If one shard of a unit is lost, only that shard is made again.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb import console
from sqzb.corpus.encode import Encoder
from sqzb.corpus.formats.common import Row, UnreadableDocument
from sqzb.corpus.near import Bands
from sqzb.corpus.seen import SeenCounter
from sqzb.corpus.sources import Unit, documents
from sqzb.corpus.store import SHARDS, write_arrays
from sqzb.corpus.text import Cleaner, Document
from sqzb.errors import UserError
from sqzb.files import sha256, write_json
from sqzb.recipe import CorpusRecipe
from sqzb.tokenizer import load_tokenizer

# Tokens of a shard, at least, unless its unit ends; about 35 MB of English.
SHARD_TOKENS = 8_000_000
BATCH_CHARACTERS = 1_000_000  # characters to tokenise at once
BAD_NAMED = 20  # unreadable documents to list in a record, and in the manifest

# The facts about a finished shard, a JSON file with the keys that `ShardWriter.write` makes.
ShardRecord = dict[str, Any]
Counts = dict[str, dict[str, int]]  # documents and bytes, by rule


# Files


def shard_name(unit: int, part: int) -> str:
    """Return the name of a shard: the numbers of its unit and of the shard in the unit."""
    return f"{unit:05d}-{part:03d}"


def shard_path(folder: Path, name: str) -> Path:
    """Return the path of a shard's tokens."""
    return folder / SHARDS / f"{name}.safetensors"


def record_path(folder: Path, name: str) -> Path:
    """Return the path of a shard's record."""
    return folder / SHARDS / f"{name}.json"


def read_record(folder: Path, name: str) -> ShardRecord | None:
    """Return the record of a shard; None if the shard is unfinished or its size has changed."""
    try:
        record: ShardRecord = json.loads(record_path(folder, name).read_text(encoding="utf-8"))
        is_whole = shard_path(folder, name).stat().st_size == record["bytes"]
    except (FileNotFoundError, ValueError, KeyError, RecursionError):
        return None
    return record if is_whole else None


def records_of(folder: Path, unit: int) -> Iterator[tuple[str, ShardRecord | None]]:
    """Yield the name and record of each shard of a unit, up to the first unfinished shard."""
    for part in count():
        name = shard_name(unit, part)
        record = read_record(folder, name)
        yield name, record
        if record is None or record["last"]:
            return


# Writing


def write_unit(folder: Path, recipe: CorpusRecipe, number: int, unit: Unit) -> None:
    """Write the shards of a unit that have no record.

    Raises:
        UserError: the unit has more unreadable documents than the recipe allows. Shards that were
            finished before are kept.
    """
    rows = _Rows(documents(unit, recipe.sources[unit.source]))
    writer = ShardWriter(folder, recipe, unit.source)
    position = 0
    for part in count():
        name = shard_name(number, part)
        record = read_record(folder, name)
        if record is None:
            rows.skip_to(position)
            record = writer.write(name, rows)
        position = record["documents_end"]
        if record["last"]:
            return


class _Rows:
    """The rows of a unit with the position of the next one, which is read ahead."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next: Row | None = None
        self.position = -1  # before the first row is read ahead

    def skip_to(self, position: int) -> None:
        """Advance to the row at `position`, or to the end."""
        while self.position < position:
            self._next = next(self._rows, None)
            self.position += 1

    @property
    def ended(self) -> bool:
        """Whether there is no next row."""
        return self._next is None

    def batch(self) -> list[Row]:
        """Return the next rows of about BATCH_CHARACTERS: at least one, unless the rows ended."""
        batch: list[Row] = []
        characters = 0
        while self._next is not None and characters < BATCH_CHARACTERS:
            batch.append(self._next)
            if isinstance(self._next, str):
                characters += len(self._next)
            self.skip_to(self.position + 1)
        return batch


class ShardWriter:
    """The writer of the shards of one source in one process."""

    def __init__(self, folder: Path, recipe: CorpusRecipe, source: str) -> None:
        self._folder = folder
        self._recipe = recipe
        self._source = source
        self._tokenizer = load_tokenizer(folder)
        self._encoder = Encoder(self._tokenizer)
        self._bands: Bands | None = None
        if recipe.near_duplicates is not None:
            self._bands = Bands(recipe.near_duplicates, recipe.seed)

    def write(self, name: str, rows: _Rows) -> ShardRecord:
        """Write the shard of the next rows, and then its record.

        Raises:
            UserError: there are more unreadable documents than the recipe allows.
        """
        cleaner = Cleaner(self._recipe, self._recipe.sources[self._source])
        seen = SeenCounter(self._tokenizer)
        arrays = _ShardArrays(self._encoder, self._bands, seen)
        unreadable: list[str] = []
        lost = 0  # documents, of which one reason may explain many
        while arrays.n_tokens < SHARD_TOKENS and (batch := rows.batch()):
            kept: list[Document] = []
            for row in batch:
                if isinstance(row, UnreadableDocument):
                    if len(unreadable) < BAD_NAMED:
                        unreadable.append(f"{row.where} {row.why}")
                    lost += row.documents
                elif (document := cleaner.document(row)) is not None:
                    kept.append(document)
            check_bad(lost, unreadable, self._recipe)
            arrays.add(kept)

        path = shard_path(self._folder, name)
        write_arrays(path, arrays.concatenated())
        record = {
            "source": self._source,
            "documents_end": rows.position,
            "last": rows.ended,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
            "tokens": arrays.n_tokens,
            "counts": cleaner.counts,
            "seen": seen.counts,
            "bad": {"documents": lost, "named": unreadable},
        }
        write_json(record_path(self._folder, name), record)
        return record


class _ShardArrays:
    """The arrays of a shard, which grow with each batch of documents; `store` describes them."""

    def __init__(self, encoder: Encoder, bands: Bands | None, seen: SeenCounter) -> None:
        self._encoder = encoder
        self._bands = bands
        self._seen = seen
        self.n_tokens = 0
        self._batches: dict[str, list[NDArray[Any]]] = {}
        self.add([])  # so that a shard without documents has all arrays, too

    def add(self, documents: list[Document]) -> None:
        """Encode and append documents."""
        sentences: list[str] = []
        for document in documents:
            sentences += document.sentences
        tokens, lengths = self._encoder.encode(sentences)
        self._seen.add(sentences, tokens, lengths)

        # `offsets[i]` is where sentence i starts, and `offsets[i + 1]` where it ends.
        offsets = self.n_tokens + np.append(0, np.cumsum(lengths))
        counts = np.array([len(document.sentences) for document in documents], np.int64)
        first_sentences = np.cumsum(counts) - counts
        has_tokens = lengths > 0

        arrays = {
            "tokens": tokens,
            "sentences": offsets[:-1][has_tokens].astype(np.uint32),
            "documents": offsets[first_sentences].astype(np.uint32),
            "keys": np.array([document.key for document in documents], np.uint64),
            "sizes": np.array([document.size for document in documents], np.uint32),
        }
        if self._bands is not None:
            texts = [" ".join(document.sentences) for document in documents]
            arrays["bands"] = self._bands.of(texts)

        for name, array in arrays.items():
            self._batches.setdefault(name, []).append(array)
        self.n_tokens += len(tokens)

    def concatenated(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all documents."""
        return {name: np.concatenate(batches) for name, batches in self._batches.items()}


def check_bad(n: int, named: list[str], recipe: CorpusRecipe) -> None:
    """Check that there are no more unreadable documents than the recipe allows.

    Args:
        n: number of unreadable documents.
        named: location and reason of some of them.
        recipe: the recipe, with its limit.

    Raises:
        UserError: there are more.
    """
    if n <= recipe.max_bad_documents:
        return
    some = "".join(f"\n  {name}" for name in named[:3])
    documents = console.counted(n, "document")
    raise UserError(
        f"{documents} cannot be read, and max_bad_documents allows {recipe.max_bad_documents:,}:"
        f"{some}\n"
        "Repair or remove these, or raise max_bad_documents to leave them out. "
        "Finished work is kept."
    )
