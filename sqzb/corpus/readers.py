"""How documents come out of a stretch of a file, of the Hub, or of Python's own documentation.

What cannot be read as a document comes as `UnreadableDocument`, in its place, and reading goes on behind it where
that is possible.
"""

import html
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.errors import UserError
from sqzb.recipe import Source

PYTHON_DOCS = "python-docs"
HUB = "hub"
COMPRESSED = (".gz", ".zst", ".bz2")  # read as a stream, so that such a file is one unit
# Half of a surrogate pair, as a careless cut leaves it in JSON, and what stands for the bytes of a file's name that are
# not UTF-8: no characters, so that they cannot be encoded.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")

COMMIT = re.compile("[0-9a-f]{40}")
# In the minute that these take, with the retries of the Hub's client in each, a connection comes back or is gone for
# longer. datasets' own 20 would be nine minutes, for a command that goes on where it stopped.
HUB_TRIES = 2

LONGEST_DOCUMENT = 32 * 2**20  # bytes; what is longer is no document, and would not fit in memory many times over
ROWS_AT_ONCE = 64
TO_THE_END = 2**62
UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)  # what damaged files raise; the last for a column's name


class Part(NamedTuple):
    """A stretch of a file in bytes, of a parquet file in row groups, or of a Hub data set in shards or rows."""

    path: str
    start: int
    end: int


class UnreadableDocument(NamedTuple):
    """What stands in a document's place and is none."""

    where: str
    why: str


def until_broken(rows: Iterator[str | UnreadableDocument], part: Part) -> Iterator[str | UnreadableDocument]:
    """A file may end too early, or in the middle of a disk's fault."""
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except UNREADABLE as error:
        yield UnreadableDocument(f"{part.path}, behind row {count}", f"cannot be read further ({error})")


# Lines of text


class _Line(NamedTuple):
    start: int  # byte in the file
    number: int  # in the part, from 1
    raw: bytes  # with its end of line; cut when it is longer than any document


def _lines(part: Part) -> Iterator[_Line]:
    """The lines from the first that starts in the part to the end of the file; none if none starts in it."""
    with _open(part.path) as stream:
        position = number = 0
        if part.start:
            position = stream.seek(part.start - 1)
            position += _skip_line(stream, part.end - position)
            if position >= part.end:
                return
        while raw := stream.readline(LONGEST_DOCUMENT + 1):
            number += 1
            yield _Line(position, number, raw)
            position += len(raw)
            if len(raw) > LONGEST_DOCUMENT and not raw.endswith(b"\n"):
                position += _skip_line(stream)


def _open(path: str) -> io.BufferedIOBase:
    if path.endswith(COMPRESSED):
        return io.BufferedReader(pa.input_stream(path, compression="detect"))
    return open(path, "rb")


def _skip_line(stream: io.BufferedIOBase, most: int = TO_THE_END) -> int:
    """Read to the end of the line, or of about so many bytes; how many bytes that were."""
    skipped = 0
    while skipped < most and (raw := stream.readline(2**20)):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


def _where(part: Part, line: _Line) -> str:
    return f"{part.path}:{_lines_before(part) + line.number}"


@lru_cache(maxsize=1)
def _lines_before(part: Part) -> int:
    if not part.start:
        return 0
    with open(part.path, "rb") as stream:
        blocks = (min(2**20, part.start - 1 - at) for at in range(0, part.start - 1, 2**20))
        return sum(stream.read(size).count(b"\n") for size in blocks) + 1


def _decoded(part: Part, lines: list[_Line]) -> str | UnreadableDocument:
    """The text of consecutive lines."""
    raw = b"".join(line.raw for line in lines)
    if len(raw) > LONGEST_DOCUMENT:
        return UnreadableDocument(_where(part, lines[0]), f"is over {LONGEST_DOCUMENT // 2**20} MiB long")
    first_of_file = lines[0].start == 0
    try:
        return raw.decode("utf-8-sig" if first_of_file else "utf-8")
    except UnicodeDecodeError as error:
        decoded = error.object  # without a byte order mark
        line = lines[decoded[: error.start].count(b"\n")]
        byte = f"0x{decoded[error.start]:02x}"
        reason = f"is not UTF-8: {error.reason} (byte {byte}); iconv -f latin1 -t utf-8 may mend it"
        return UnreadableDocument(_where(part, line), reason)


def _jsonl(part: Part, source: Source) -> Iterator[str | UnreadableDocument]:
    for line in _lines(part):
        if line.start >= part.end:
            return
        text = _decoded(part, [line])
        if isinstance(text, UnreadableDocument):
            yield text
        elif text.strip():
            row = _json_text(text, source.text)
            yield row if isinstance(row, str) else UnreadableDocument(_where(part, line), row.why)


def _json_text(line: str, column: str) -> str | UnreadableDocument:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return UnreadableDocument("", f"is no JSON ({error})")
    if not isinstance(row, dict):
        return UnreadableDocument("", f"is no JSON object with the key {column}")
    if column not in row:
        return UnreadableDocument("", _no_column(column, list(row)))
    if not isinstance(row[column], str):
        return UnreadableDocument("", f"{column} holds {str(row[column])[:100]!r}, not text")
    return HALF_CHARACTER.sub("\ufffd", row[column])


def _txt(part: Part, source: Source) -> Iterator[str | UnreadableDocument]:
    if source.sentences_per_document is not None:
        lines = takewhile(lambda line: line.start < part.end, _lines(part))
        yield from (_decoded(part, [line]) for line in lines)
    elif one_document(source):
        yield _whole(part)
    else:
        yield from _blank_line_blocks(part)


def one_document(source: Source) -> bool:
    return source.txt_documents == "file" and source.sentences_per_document is None


def _whole(part: Part) -> str | UnreadableDocument:
    with _open(part.path) as stream:
        raw = stream.read(LONGEST_DOCUMENT + 1)
    if len(raw) > LONGEST_DOCUMENT:
        why = f"is over {LONGEST_DOCUMENT // 2**20} MiB long, for one document; see the source's key txt_documents"
        return UnreadableDocument(part.path, why)
    lines = [_Line(0, n, line) for n, line in enumerate(raw.splitlines(keepends=True), start=1)]
    return _decoded(part, lines) if lines else ""  # as when nothing was compressed


class _Block:
    """Lines that make a document; of one that is too long, enough to say so."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self._size = 0

    def add(self, line: _Line) -> None:
        if self._size <= LONGEST_DOCUMENT:
            self.lines.append(line)
            self._size += len(line.raw)


def _blank_line_blocks(part: Part) -> Iterator[str | UnreadableDocument]:
    """A block belongs to the part in which the last blank line before it starts, the first of a file to the first."""
    block, ours = _Block(), part.start == 0
    for line in _lines(part):
        if line.raw.strip():
            if ours:
                block.add(line)
            elif line.start >= part.end:
                return
            continue
        if block.lines:
            yield _decoded(part, block.lines)
        if line.start >= part.end:
            return
        block, ours = _Block(), True
    if block.lines:
        yield _decoded(part, block.lines)


def _wiki(part: Part, source: Source) -> Iterator[str | UnreadableDocument]:
    """wikiextractor's output: with --json a JSON object a line, else `<doc ...>`, the title, the text, `</doc>`."""
    with _open(part.path) as stream:
        json_lines = stream.read(1) == b"{"
    yield from _jsonl(part, source) if json_lines else _wiki_tags(part)


NO_END = "has no </doc>"


def _wiki_tags(part: Part) -> Iterator[str | UnreadableDocument]:
    """To a part belongs what lies from its first `<doc` to the first of the next; to the first, all before it too."""
    page: _Block | None = None
    ours, astray = part.start == 0, False
    for line in _lines(part):
        begins = line.raw.startswith(b"<doc ")
        if line.start >= part.end and (begins or not ours):
            break
        if begins:
            if page is not None:
                yield UnreadableDocument(_where(part, page.lines[0]), NO_END)
            page, ours, astray = _Block(), True, False
            page.add(line)
        elif page is not None and line.raw.startswith(b"</doc>"):
            yield _page_text(_decoded(part, page.lines))
            page = None
        elif page is not None:
            page.add(line)
        elif ours and not astray and line.raw.strip():
            astray = True
            yield UnreadableDocument(_where(part, line), "stands in no <doc ...>")
    if page is not None:
        yield UnreadableDocument(_where(part, page.lines[0]), NO_END)


def _page_text(page: str | UnreadableDocument) -> str | UnreadableDocument:
    if isinstance(page, UnreadableDocument):
        return page
    tag, _, text = page.partition("\n")
    title, _, rest = text.partition("\n")
    return rest if f'title="{title.strip()}"' in html.unescape(tag) else text


# Parquet


def open_parquet(file: str | Path) -> Any:
    opened = pq.ParquetFile(file, memory_map=True, page_checksum_verification=True)
    rows = sum(_rows_of_groups(opened))
    if rows != opened.metadata.num_rows:
        raise pa.ArrowInvalid(f"its row groups have {rows:,} rows in place of {opened.metadata.num_rows:,}")
    return opened


def _rows_of_groups(opened: Any) -> list[int]:
    metadata = opened.metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _parquet(part: Part, source: Source) -> Iterator[str | UnreadableDocument]:
    opened = open_parquet(part.path)
    schema = opened.schema_arrow
    if source.text not in schema.names:
        yield UnreadableDocument(part.path, _no_column(source.text, schema.names))
        return
    if schema.names.count(source.text) > 1:
        yield UnreadableDocument(part.path, f"has several columns {source.text}")
        return
    kind = schema.field(source.text).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        yield UnreadableDocument(
            part.path, f"column {source.text} holds {kind}, not text; the columns are {', '.join(schema.names)}"
        )
        return
    rows = _rows_of_groups(opened)
    for group in range(part.start, part.end):
        first = sum(rows[:group])
        yield from _row_group(opened, part.path, group, source.text, first, first + rows[group])


def _row_group(
    opened: Any, path: str, group: int, column: str, row: int, end: int
) -> Iterator[str | UnreadableDocument]:
    where = f"{path}, row group {group}, behind row"
    try:
        for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column]):
            for raw in batch.column(0).cast(pa.large_string()).cast(pa.large_binary()).to_pylist():
                row += 1
                yield _parquet_text(raw, f"{path}, row {row:,}")
    except UNREADABLE as error:
        yield UnreadableDocument(f"{where} {row:,}", f"cannot be read further ({error})")
    else:
        if row != end:  # a page's header has no checksum
            yield UnreadableDocument(f"{where} {row:,}", f"cannot be read further (its end should be row {end:,})")


def _parquet_text(raw: bytes | None, where: str) -> str | UnreadableDocument:
    if raw is None:
        return ""
    if len(raw) > LONGEST_DOCUMENT:
        return UnreadableDocument(where, f"is over {LONGEST_DOCUMENT // 2**20} MiB long")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return UnreadableDocument(where, f"is not UTF-8: {error.reason} (byte 0x{raw[error.start]:02x})")


def _no_column(column: str, columns: list[str]) -> str:
    there = HALF_CHARACTER.sub("\ufffd", ", ".join(columns)[:500])
    return f"has no column {column}; it has {there}. Name the text column in the source's key `text`"


# The Hub


def open_hub(source: Source) -> tuple[Any, str]:
    """The data set, as a stream or from datasets' cache, and its commit; scripts are never run.

    Where the Hub cannot be reached, datasets takes the newest copy in its cache, of whatever commit. UserError when
    that is another than the one that the source names.
    """
    import datasets

    datasets.config.STREAMING_OPEN_MAX_RETRIES = datasets.config.STREAMING_READ_MAX_RETRIES = HUB_TRIES
    try:
        builder = datasets.load_dataset_builder(source.path, source.config, revision=source.revision)
        if source.streaming:
            data = builder.as_streaming_dataset(split=source.split)
        else:
            builder.download_and_prepare()
            data = builder.as_dataset(split=source.split)
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"There is no local path {source.path}, and the Hub data set of that name cannot be opened "
            f"({type(error).__name__}: {error}). Check path, config, split and revision and the network, or set the "
            "source's `path` to local files."
        ) from error
    if COMMIT.fullmatch(source.revision or "") and builder.hash != source.revision:
        raise UserError(
            f"{source.path} at commit {source.revision} could not be had from the Hub, and the newest copy in the "
            f"local cache is of commit {builder.hash}. Connect to the network, or set the source's `revision` to it."
        )
    if data.column_names is not None and source.text not in data.column_names:
        raise UserError(f"{source.path} {_no_column(source.text, data.column_names)}.")
    return data, builder.hash


def _hub_rows(part: Part, source: Source) -> Iterator[str | UnreadableDocument]:
    data, _ = open_hub(source)
    if source.streaming:
        rows = data.shard(num_shards=data.num_shards, index=part.start)
    else:
        rows = data.select(range(part.start, part.end))
    try:
        for number, row in enumerate(rows, start=1 if source.streaming else part.start + 1):
            where = f"{source.path}, {f'shard {part.start}, ' if source.streaming else ''}row {number:,}"
            text = row.get(source.text, "")
            if source.text not in row:
                yield UnreadableDocument(where, _no_column(source.text, list(row)))
            elif text is not None and not isinstance(text, str):
                yield UnreadableDocument(where, f"{source.text} holds {str(text)[:100]!r}, not text")
            else:
                yield text or ""
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"The Hub data set {source.path} could not be read to its end ({type(error).__name__}: {error}). "
            "Run the command again: it goes on where it stopped."
        ) from error


# Python's documentation


def python_docs() -> Iterator[str]:
    """The English prose of Python's own documentation, a document a topic: in every CPython, without a download.

    Kept are the paragraphs of running text: those that start at the margin with a capital and end as a sentence
    does. Code, grammar, tables and headings go.
    """
    from pydoc_data.topics import topics

    for _, topic in sorted(topics.items()):
        paragraphs = (" ".join(block.split()) for block in re.split(r"\n\s*\n", topic) if not block.startswith(" "))
        yield "\n\n".join(p for p in paragraphs if re.fullmatch(r"[A-Z].*[.:]", p) and "::=" not in p)


READERS: dict[str, Callable[[Part, Source], Iterator[str | UnreadableDocument]]] = {
    "jsonl": _jsonl,
    "txt": _txt,
    "wiki": _wiki,
    "parquet": _parquet,
    HUB: _hub_rows,
    PYTHON_DOCS: lambda part, source: python_docs(),
}
