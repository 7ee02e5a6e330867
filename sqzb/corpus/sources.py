"""Sources, divided into units of work.

Units depend on the source alone, so the result does not depend on the number of processes that
share the work.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sqzb import console
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
from sqzb.folders import Listing, expand, walk
from sqzb.hub import hub_id
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
ASSUMED_BYTES = 100  # of a document in a file of which none could be read


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


def units(name: str, source: Source, listing: Listing | None = None) -> list[Unit]:
    """Return all units of the source called `name`, in order.

    listing: the local files of the source, if they are found already.

    Raises:
        UserError: the source's path is no local path, no Hub id and not python-docs; a file
            cannot be used; or the Hub data set cannot be opened.
    """
    if source.path == python_docs.NAME:
        piece = python_docs.divide()
        return [Unit(name, python_docs.NAME, [piece.part], piece.size)]

    files = (listing or local_files(source)).files
    if files:
        return _units_of_files(name, files, source)

    if hub_id(source.path) and not _looks_like_a_file(source.path):
        pieces, revision = hub.divide(source, UNIT_BYTES)
        return [Unit(name, hub.NAME, [piece.part], piece.size, revision) for piece in pieces]

    raise UserError(
        f"Source {name}: there is no file, folder or glob {source.path}. Give a path to {READABLE} "
        f"files, a Hub id (owner/name, owner/name@revision), or "
        f"{python_docs.NAME}."
    )


def _looks_like_a_file(path: str) -> bool:
    """Return whether a path that does not exist has the ending of a file, so is no Hub id."""
    return _kind(Path(path)) is not None


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
    """Yield the rows up to where the file is damaged or ends too early, and then the reason.

    The reason counts as the documents that are lost, estimated from the part's bytes.
    """
    count = characters = 0
    try:
        for row in rows:
            count += 1
            if isinstance(row, str):
                characters += len(row)
            yield row
    except UNREADABLE as error:
        lost = _documents_lost(part, count, characters)
        where = f"{part.path}, behind row {count}"
        estimate = f"{console.counted(lost, 'document')} {'is' if lost == 1 else 'are'} lost"
        about = f"cannot be read further ({error}); about {estimate}"
        yield UnreadableDocument(where, about, lost)


def _documents_lost(part: Part, count: int, characters: int) -> int:
    """Estimate how many documents are in a part behind the first `count` ones.

    Of a compressed file and of parquet, the bytes that were read are not known: the file's own
    size stands for its rest.
    """
    try:
        size = os.stat(part.path).st_size
    except OSError:
        size = 0
    suffix = Path(part.path).suffix.lower()
    if suffix not in COMPRESSED and suffix.removeprefix(".") not in BINARY:
        size = min(size, part.end) - part.start - characters
    mean = characters // count if characters else ASSUMED_BYTES
    return max(1, size // max(1, mean))


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


def local_files(source: Source) -> Listing:
    """Return the files that a source's path or glob names, and the entries that are passed over.

    A folder stands for all readable files in it, at any depth. There are no files if the path is
    none of these.

    Raises:
        UserError: a folder has no readable files or cannot be read, or a file cannot be used.
    """
    if source.path == python_docs.NAME:
        return Listing([], [], [])
    path = Path(source.path)
    # os.path answers no where pathlib raises: a name that is too long, a folder without rights.
    if os.path.isfile(path):
        given = Listing([path], [], [])
    elif os.path.exists(path):
        given = Listing([], [path], [])
    else:
        given = expand(source.path)

    files = set(given.files)
    passed = set(given.passed)
    for folder in given.folders:
        inside = walk(folder).chosen(lambda file: _kind(file) is not None)
        if not inside.files:
            about = inside.about_passed()
            there = f" It holds {about}." if about else ""
            advice = "Give the folder or glob that holds the text."
            raise UserError(f"{folder} has no {READABLE} files.{there} {advice}")
        files.update(inside.files)
        passed.update(inside.passed)

    in_order = sorted(files)
    for file in in_order:
        _check_file(file)
    return Listing(in_order, [], sorted(passed))


def about_files(name: str, source: Source, listing: Listing) -> Iterator[str]:
    """Yield sentences about the files of the source called `name`; none if it has no local files.

    The sentences name the entries that are passed over, and the boundary of documents in txt files.
    """
    if not listing.files:
        return
    size = sum(file.stat().st_size for file in listing.files)
    about = f"{console.counted(len(listing.files), 'file')}, {console.size(size)}"
    passed = f" Passed over: {listing.about_passed()}." if listing.passed else ""
    yield f"Source {name}: {about} in {source.path}.{passed}"

    n_txt = sum(_kind(file) == "txt" for file in listing.files)
    if n_txt and source.txt_documents == "file" and source.sentences_per_document is None:
        each = "The txt file is" if n_txt == 1 else f"Each of the {n_txt:,} txt files is"
        yield f"{each} one document. `txt_documents: blank-lines` divides txt files at blank lines."


def _check_file(file: Path) -> None:
    """Check that a file can be used.

    Raises:
        UserError: the file is of no known format or empty, cannot be opened, or its name is not
            UTF-8.
    """
    if not _kind(file):
        raise UserError(f"{file} has an unknown format; sources are {READABLE} files.")
    if file.stat().st_size == 0:
        raise UserError(f"{file} is empty. Remove the file, or add text.")
    if HALF_CHARACTER.search(str(file)):
        raise UserError(f"The name of the file {str(file)!r} is not UTF-8. Rename it.")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file} cannot be read. Get the right to read it, or leave it out.")


def _kind(file: Path) -> str | None:
    """Return the key of the file's format in FILE_FORMATS; None if there is no such format."""
    is_compressed = file.suffix.lower() in COMPRESSED
    plain = file.with_suffix("") if is_compressed else file
    if wiki.FILE_NAME.fullmatch(plain.name):
        return WIKI
    suffix = plain.suffix.lower().removeprefix(".")
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
