"""Sources, divided into units of work.

Units depend on the source alone, so the result does not depend on the number of processes that
share the work.
"""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sqzb.corpus.formats import hub, jsonl, parquet, python_docs, txt, wiki
from sqzb.corpus.formats.common import (
    HALF_CHARACTER,
    UNREADABLE,
    FileFormat,
    Part,
    Piece,
    Row,
    UnreadableDocument,
)
from sqzb.corpus.formats.lines import COMPRESSED
from sqzb.errors import UserError
from sqzb.hub import HUB_ID
from sqzb.recipe import Source

# A new format of files is a module like these and a line in one of the first two tables.
BINARY: dict[str, FileFormat] = {"parquet": parquet}  # by suffix
TEXT: dict[str, FileFormat] = {"jsonl": jsonl, "txt": txt}  # by suffix; also compressed
WIKI = "wiki"
FILE_FORMATS: dict[str, FileFormat] = {**BINARY, **TEXT, WIKI: wiki}

READABLE = (
    f"{', '.join(f'.{suffix}' for suffix in (*BINARY, *TEXT))} "
    f"({' and '.join(TEXT)} also with {', '.join(COMPRESSED)}) and wikiextractor's wiki_NN"
)
UNIT_BYTES = 32 * 2**20


class Unit(NamedTuple):
    """A part of a source that one process reads at a time, of about `UNIT_BYTES` if possible.

    The order of the fields is that of the lists in units.json.
    """

    source: str  # name in the recipe
    kind: str  # key of FILE_FORMATS, or the name of another format
    parts: list[Part]
    size: int  # bytes of text, or of the compressed file; 0 if unknown
    # Of a Hub data set, the commit at the start of the work: resumed work reads the same commit.
    revision: str | None = None


def units(name: str, source: Source) -> list[Unit]:
    """Return all units of the source called `name`, in order.

    Raises:
        UserError: the source's path is no local path, no Hub id and not python-docs; a file
            cannot be used; or the Hub data set cannot be opened.
    """
    if source.path == python_docs.NAME:
        piece = python_docs.divide()
        return [Unit(name, python_docs.NAME, [piece.part], piece.size)]

    files = _files(source.path)
    if files:
        return _units_of_files(name, files, source)

    if HUB_ID.fullmatch(source.path):
        pieces, revision = hub.divide(source, UNIT_BYTES)
        return [Unit(name, hub.NAME, [piece.part], piece.size, revision) for piece in pieces]

    raise UserError(
        f"Source {name}: there is no file, folder or glob {source.path}. Give a path to {READABLE} "
        f"files, a Hub id (owner/name), or {python_docs.NAME}."
    )


def documents(unit: Unit, source: Source) -> Iterator[Row]:
    """Yield the documents of a unit in order, and unreadable documents in their place.

    Raises:
        UserError: the Hub data set cannot be opened, or cannot be read to its end.
    """
    source = source.model_copy(update={"revision": unit.revision})
    for part in unit.parts:
        rows = _read(unit.kind, part, source)
        if source.sentences_per_document is None:
            yield from rows
        else:
            yield from _joined(rows, source.sentences_per_document)


def _read(kind: str, part: Part, source: Source) -> Iterator[Row]:
    match kind:
        case python_docs.NAME:
            return python_docs.read()
        case hub.NAME:
            return hub.read(part, source)
        case _:
            return _until_damage(FILE_FORMATS[kind].read(part, source), part)


def _until_damage(rows: Iterator[Row], part: Part) -> Iterator[Row]:
    """Yield the rows up to where the file is damaged or ends too early, and then the reason."""
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except UNREADABLE as error:
        where = f"{part.path}, behind row {count}"
        yield UnreadableDocument(where, f"cannot be read further ({error})")


def _joined(rows: Iterator[Row], sentences_per_document: int) -> Iterator[Row]:
    """Yield documents of `sentences_per_document` rows each; the last may have fewer."""
    sentences: list[str] = []
    for row in rows:
        if isinstance(row, UnreadableDocument):
            yield row
        elif row.strip():
            sentences.append(row)
            if len(sentences) == sentences_per_document:
                yield "\n\n".join(sentences)
                sentences = []
    if sentences:
        yield "\n\n".join(sentences)


# Files


def _files(path: str) -> list[Path]:
    """Return the files that a path or glob names, in order; none if nothing matches.

    A folder stands for all readable files in it, at any depth.

    Raises:
        UserError: a folder has no readable files, or a file cannot be used.
    """
    is_path = Path(path).exists()
    matches = [path] if is_path else glob.glob(path, recursive=True)

    files: set[Path] = set()  # a glob with ** matches a folder and also the files in it
    for match in map(Path, matches):
        if match.is_file():
            files.add(match)
            continue
        inside = [file for file in match.rglob("*") if _kind(file) and file.is_file()]
        if not inside:
            advice = "Give the folder or glob that holds the text."
            raise UserError(f"{match} has no {READABLE} files. {advice}")
        files.update(inside)

    in_order = sorted(files)
    for file in in_order:
        _check_file(file)
    return in_order


def _check_file(file: Path) -> None:
    """Check that a file can be used.

    Raises:
        UserError: the file is of no known format or empty, or its name is not UTF-8.
    """
    if not _kind(file):
        raise UserError(f"{file} has an unknown format; sources are {READABLE} files.")
    if file.stat().st_size == 0:
        raise UserError(f"{file} is empty. Remove the file, or add text.")
    if HALF_CHARACTER.search(str(file)):
        raise UserError(f"The name of the file {str(file)!r} is not UTF-8. Rename it.")


def _kind(file: Path) -> str | None:
    """Return the key of the file's format in FILE_FORMATS; None if there is no such format."""
    is_compressed = file.suffix in COMPRESSED
    plain = file.with_suffix("") if is_compressed else file
    if wiki.FILE_NAME.fullmatch(plain.name):
        return WIKI
    suffix = plain.suffix.removeprefix(".")
    if suffix in TEXT or (suffix in BINARY and not is_compressed):
        return suffix
    return None


def _units_of_files(name: str, files: list[Path], source: Source) -> list[Unit]:
    """Return the pieces of all files, joined to units of one format and about `UNIT_BYTES`."""
    units_so_far: list[Unit] = []
    for file in files:
        kind = _kind(file) or ""
        for piece in FILE_FORMATS[kind].divide(file, source, UNIT_BYTES):
            last = units_so_far[-1] if units_so_far else None
            if last and last.kind == kind and last.size + piece.size <= UNIT_BYTES:
                units_so_far[-1] = _with_piece(last, piece)
            else:
                units_so_far.append(Unit(name, kind, [piece.part], piece.size))
    return units_so_far


def _with_piece(unit: Unit, piece: Piece) -> Unit:
    """Return the unit with one more piece. Parts that are neighbours in a file become one part."""
    parts = list(unit.parts)
    last = parts[-1]
    is_neighbour = (last.path, last.end) == (piece.part.path, piece.part.start)
    if is_neighbour:
        parts[-1] = last._replace(end=piece.part.end)
    else:
        parts.append(piece.part)
    return unit._replace(parts=parts, size=unit.size + piece.size)
