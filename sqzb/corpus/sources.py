"""Documents from local files, from the Hub, and from Python's own documentation.

A source is read in units: parts that depend on the source alone, so that the result does not depend on how many
processes share the work.
"""

import glob
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.errors import UserError
from sqzb.hub import HUB_ID
from sqzb.recipe import Source

PYTHON_DOCS = "python-docs"
SUFFIXES = (".parquet", ".jsonl", ".txt")


class Unit(NamedTuple):
    """A part of a source: a file (or one row group of it), a shard of a Hub data set, or the built-in text."""

    source: str  # the source's name in the recipe
    path: str
    part: int = 0
    size: int = 0  # bytes, where known


def units(name: str, source: Source) -> list[Unit]:
    """All units of a source, in its order. UserError when there is nothing to read."""
    if source.path == PYTHON_DOCS:
        return [Unit(name, PYTHON_DOCS)]
    files = _files(source.path)
    if files:
        return [unit for file in files for unit in _file_units(name, file)]
    if HUB_ID.fullmatch(source.path):
        return [Unit(name, source.path, shard) for shard in range(_hub(source).num_shards)]
    raise UserError(
        f"Source {name}: there is no file, folder or glob {source.path}. Give a path to {', '.join(SUFFIXES)} files, "
        f"a Hub id (owner/name), or {PYTHON_DOCS}."
    )


def documents(unit: Unit, source: Source) -> Iterator[str]:
    """The documents of a unit, in order. UserError names the file and row that cannot be read."""
    texts = _texts(unit, source)
    if source.sentences_per_document is None:
        yield from texts
        return
    sentences = iter(texts)
    while batch := list(islice(sentences, source.sentences_per_document)):
        yield "\n\n".join(batch)


def _texts(unit: Unit, source: Source) -> Iterable[str]:
    if unit.path == PYTHON_DOCS:
        return python_docs()
    path = Path(unit.path)
    if path.suffix == ".parquet" and path.exists():
        return _parquet(path, unit.part, source.text)
    if path.suffix == ".jsonl" and path.exists():
        return _jsonl(path, source.text)
    if path.suffix == ".txt" and path.exists():
        return _txt(path, source)
    return _hub_texts(unit, source)


def _files(path: str) -> list[Path]:
    """The readable files that a path or glob stands for; a folder stands for all that is in it, at any depth."""
    matches = [Path(path)] if Path(path).exists() else [Path(match) for match in glob.glob(path, recursive=True)]
    found = []
    for match in matches:
        inside = [match] if match.is_file() else [f for f in match.rglob("*") if f.suffix in SUFFIXES and f.is_file()]
        if not inside:
            raise UserError(f"{match} has no {', '.join(SUFFIXES)} files. Give the folder or glob that holds the text.")
        found += inside
    for file in found:
        if file.suffix not in SUFFIXES:
            raise UserError(f"{file} is of no kind that can be read; sources are {', '.join(SUFFIXES)} files.")
        if file.stat().st_size == 0:
            raise UserError(f"{file} is empty. Remove it or put text into it.")
    return sorted(set(found))  # a glob with ** finds a folder and also what is in it


def _file_units(name: str, file: Path) -> list[Unit]:
    size = file.stat().st_size
    if file.suffix != ".parquet":
        return [Unit(name, str(file), 0, size)]
    groups = _open_parquet(file).metadata
    return [Unit(name, str(file), i, groups.row_group(i).total_byte_size) for i in range(groups.num_row_groups)]


def _open_parquet(file: Path) -> Any:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet ({error}). Fetch or write it again.") from error


def _parquet(file: Path, group: int, column: str) -> Iterator[str]:
    opened = _open_parquet(file)
    schema = opened.schema_arrow
    _check_column(str(file), column, schema.names)
    if not (pa.types.is_string(schema.field(column).type) or pa.types.is_large_string(schema.field(column).type)):
        raise UserError(
            f"{file}: column {column} holds {schema.field(column).type}, not text. Name the text column in the "
            f"source's key `text`; the columns are {', '.join(schema.names)}."
        )
    try:
        for batch in opened.iter_batches(batch_size=256, row_groups=[group], columns=[column]):
            yield from (text or "" for text in batch.column(0).to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}, row group {group}, cannot be read ({error}). Fetch or write it again.") from error


def _jsonl(file: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}:{number} is no JSON ({error}). Each line must be one JSON object.") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}:{number} is no JSON object. Each line must be one, with the key {column}.")
        _check_column(f"{file}:{number}", column, list(row))
        if not isinstance(row[column], str):
            raise UserError(f"{file}:{number}: {column} holds {row[column]!r}, not text. Name the text column.")
        # Half of a surrogate pair, as a careless cut leaves it, is no character and cannot be encoded.
        yield re.sub("[\ud800-\udfff]", "\ufffd", row[column])


def _txt(file: Path, source: Source) -> Iterator[str]:
    if source.sentences_per_document is not None:
        yield from (line for line in _lines(file) if line.strip())
    elif source.txt_documents == "file":
        yield "".join(_lines(file))
    else:
        block: list[str] = []
        for line in _lines(file):
            if line.strip():
                block.append(line)
            elif block:
                yield "".join(block)
                block = []
        if block:
            yield "".join(block)


def _lines(file: Path) -> Iterator[str]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file}:{number} is not UTF-8: {error.reason} (byte 0x{line[error.start]:02x}). Convert the file "
                    "first, such as with iconv -f latin1 -t utf-8."
                ) from error


def _check_column(where: str, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise UserError(
            f"{where} has no column {column}; it has {', '.join(columns)}. Name the text column "
            "in the source's key `text`."
        )


def _hub(source: Source) -> Any:
    """The data set as a stream; scripts are never run."""
    import datasets

    try:
        stream = datasets.load_dataset(
            source.path, source.config, split=source.split, revision=source.revision, streaming=True
        )
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"There is no local path {source.path}, and the Hub data set of that name cannot be opened "
            f"({type(error).__name__}: {error}). Check path, config, split and revision and the network, or set the "
            "source's `path` to local files."
        ) from error
    if stream.column_names is not None:
        _check_column(source.path, source.text, stream.column_names)
    return stream


def _hub_texts(unit: Unit, source: Source) -> Iterator[str]:
    stream = _hub(source)
    try:
        for row in stream.shard(num_shards=stream.num_shards, index=unit.part):
            _check_column(source.path, source.text, list(row))
            text = row[source.text]
            if text is not None and not isinstance(text, str):
                raise UserError(f"{source.path}: {source.text} holds {text!r}, not text. Name the text column.")
            yield text or ""
    except UserError:
        raise
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"The Hub data set {source.path} could not be read to its end ({type(error).__name__}: {error}). "
            "Run the command again: it goes on where it stopped."
        ) from error


def python_docs() -> Iterator[str]:
    """The English prose of Python's own documentation, a document a topic: in every CPython, without a download.

    Kept are the paragraphs of running text: those that start at the margin with a capital and end as a sentence
    does. Code, grammar, tables and headings go.
    """
    from pydoc_data.topics import topics

    for _, topic in sorted(topics.items()):
        paragraphs = (" ".join(block.split()) for block in re.split(r"\n\s*\n", topic) if not block.startswith(" "))
        yield "\n\n".join(p for p in paragraphs if re.fullmatch(r"[A-Z].*[.:]", p) and "::=" not in p)
