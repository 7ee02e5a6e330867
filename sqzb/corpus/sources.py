"""Sources, cut into units: parts that depend on the source alone, so that the result does not depend on how many
processes share the work.
"""

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sqzb.corpus.readers import (
    COMPRESSED,
    HALF_CHARACTER,
    HUB,
    PYTHON_DOCS,
    READERS,
    TO_THE_END,
    UNREADABLE,
    Part,
    UnreadableDocument,
    one_document,
    open_hub,
    open_parquet,
    until_broken,
)
from sqzb.errors import UserError
from sqzb.hub import HUB_ID
from sqzb.recipe import Source

KINDS = {".parquet": "parquet", ".jsonl": "jsonl", ".txt": "txt"}
WIKIEXTRACTOR = re.compile(r"wiki_\d+")  # its files have no suffix
READABLE = f"{', '.join(KINDS)} (jsonl and txt also with {', '.join(COMPRESSED)}) and wikiextractor's wiki_NN"
UNIT_BYTES = 32 * 2**20


class Unit(NamedTuple):
    """A part of a source that is read at a time, of about `UNIT_BYTES` where files can be divided or put together."""

    source: str  # its name in the recipe
    kind: str
    parts: list[Part]
    size: int  # bytes of text, or of the compressed file; 0 where it is not known
    revision: str | None = None  # of a Hub data set: its commit when the work was begun, so that it ends with the same


def units(name: str, source: Source) -> list[Unit]:
    """All units of a source, in its order. UserError when there is nothing to read."""
    if source.path == PYTHON_DOCS:
        return [Unit(name, PYTHON_DOCS, [Part(PYTHON_DOCS, 0, 1)], 0)]
    files = _files(source.path)
    if files:
        return _bundled(name, (piece for file in files for piece in _pieces(file, source)))
    if HUB_ID.fullmatch(source.path):
        return _hub_units(name, source)
    raise UserError(
        f"Source {name}: there is no file, folder or glob {source.path}. Give a path to {READABLE} files, a Hub id "
        f"(owner/name), or {PYTHON_DOCS}."
    )


def documents(unit: Unit, source: Source) -> Iterator[str | UnreadableDocument]:
    """The documents of a unit, in order."""
    source = source.model_copy(update={"revision": unit.revision})
    for part in unit.parts:
        rows = READERS[unit.kind](part, source)
        if unit.kind != HUB:
            rows = until_broken(rows, part)
        yield from rows if source.sentences_per_document is None else _gathered(rows, source.sentences_per_document)


def _gathered(
    rows: Iterator[str | UnreadableDocument], sentences_per_document: int
) -> Iterator[str | UnreadableDocument]:
    gathered: list[str] = []
    for row in rows:
        if isinstance(row, UnreadableDocument):
            yield row
        elif row.strip():
            gathered.append(row)
            if len(gathered) == sentences_per_document:
                yield "\n\n".join(gathered)
                gathered = []
    if gathered:
        yield "\n\n".join(gathered)


# Files


def _files(path: str) -> list[Path]:
    """The readable files that a path or glob stands for; a folder stands for all that is in it, at any depth."""
    matches = [Path(path)] if Path(path).exists() else [Path(match) for match in glob.glob(path, recursive=True)]
    found = []
    for match in matches:
        inside = [match] if match.is_file() else [f for f in match.rglob("*") if _kind(f) and f.is_file()]
        if not inside:
            raise UserError(f"{match} has no {READABLE} files. Give the folder or glob that holds the text.")
        found += inside
    for file in found:
        if not _kind(file):
            raise UserError(f"{file} is of no kind that can be read; sources are {READABLE} files.")
        if file.stat().st_size == 0:
            raise UserError(f"{file} is empty. Remove it or put text into it.")
        if HALF_CHARACTER.search(str(file)):
            raise UserError(f"The name of the file {str(file)!r} is not UTF-8. Rename it.")
    return sorted(set(found))  # a glob with ** finds a folder and also what is in it


def _kind(file: Path) -> str | None:
    plain = file.with_suffix("") if file.suffix in COMPRESSED else file
    if WIKIEXTRACTOR.fullmatch(plain.name):
        return "wiki"
    return None if plain != file and plain.suffix == ".parquet" else KINDS.get(plain.suffix)


def _pieces(file: Path, source: Source) -> Iterator[tuple[str, Part, int]]:
    """The smallest parts of a file: (kind, part, size)."""
    kind, size = _kind(file) or "", file.stat().st_size
    if kind == "parquet":
        try:
            groups = open_parquet(file).metadata
        except UNREADABLE:  # reading it will say so
            yield kind, Part(str(file), 0, 1), size
            return
        for group in range(groups.num_row_groups):
            yield kind, Part(str(file), group, group + 1), groups.row_group(group).total_byte_size
    elif file.suffix in COMPRESSED or (kind == "txt" and one_document(source)):
        yield kind, Part(str(file), 0, TO_THE_END), size
    else:
        for start in range(0, size, UNIT_BYTES):
            end = min(start + UNIT_BYTES, size)
            yield kind, Part(str(file), start, end), end - start


def _bundled(name: str, pieces: Iterator[tuple[str, Part, int]]) -> list[Unit]:
    """Pieces put together to units; neighbours in a file to one part."""
    found: list[Unit] = []
    for kind, part, size in pieces:
        if not found or found[-1].kind != kind or found[-1].size + size > UNIT_BYTES:
            found.append(Unit(name, kind, [part], size))
            continue
        parts = found[-1].parts
        if (parts[-1].path, parts[-1].end) == (part.path, part.start):
            parts[-1] = parts[-1]._replace(end=part.end)
        else:
            parts.append(part)
        found[-1] = found[-1]._replace(size=found[-1].size + size)
    return found


# The Hub


def _hub_units(name: str, source: Source) -> list[Unit]:
    data, revision = open_hub(source)
    if not source.streaming:
        size = data.select_columns(source.text).data.nbytes if len(data) else 0
        rows = max(1, len(data) * UNIT_BYTES // max(1, size))
        ranges = [Part(source.path, start, min(start + rows, len(data))) for start in range(0, len(data), rows)]
        return [Unit(name, HUB, [part], size // len(ranges), revision) for part in ranges]
    splits = data.info.splits or {}
    size = (splits[source.split].num_bytes or 0) if source.split in splits else 0
    shards = data.num_shards
    parts = [Part(source.path, shard, shard + 1) for shard in range(shards)]
    return [Unit(name, HUB, [part], size // shards, revision) for part in parts]
