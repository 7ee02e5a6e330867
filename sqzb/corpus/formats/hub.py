"""Data sets of the Hugging Face Hub, as a stream or from the local cache of `datasets`."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from sqzb.corpus.formats.common import Part, Piece, Row, UnreadableDocument, missing_column
from sqzb.errors import UserError
from sqzb.hub import COMMIT, HubId, asked_once, hub_id, note, offline
from sqzb.recipe import Source

NAME = "hub"  # in units.json

# Two tries take a minute, because the Hub's client retries within each. A connection that is not
# back by then is gone for longer. The default of `datasets`, 20 tries, would be nine minutes, for
# a command that can be resumed.
TRIES = 2


def divide(source: Source, unit_bytes: int) -> tuple[list[Piece], str]:
    """Return the pieces of the data set and its commit.

    A piece is a shard of a stream, or rows of about `unit_bytes` of a downloaded data set.

    Raises:
        UserError: the data set cannot be opened; see `_open`.
    """
    data, commit = _open(source)
    if source.streaming:
        return _shards(data, source), commit
    return _row_ranges(data, source, unit_bytes), commit


def _shards(data: Any, source: Source) -> list[Piece]:
    splits = data.info.splits or {}
    size = 0
    if source.split in splits:
        size = splits[source.split].num_bytes or 0
    count = data.num_shards
    parts = [Part(source.path, shard, shard + 1) for shard in range(count)]
    return [Piece(part, size // count) for part in parts]


def _row_ranges(data: Any, source: Source, unit_bytes: int) -> list[Piece]:
    n_rows = len(data)
    if not n_rows:
        return []
    size = data.select_columns(source.text).data.nbytes
    step = max(1, n_rows * unit_bytes // max(1, size))
    bounds = [*range(0, n_rows, step), n_rows]
    parts = [Part(source.path, start, end) for start, end in pairwise(bounds)]
    return [Piece(part, size // len(parts)) for part in parts]


def read(part: Part, source: Source) -> Iterator[Row]:
    """Yield the rows of the part. A null is an empty document.

    Raises:
        UserError: the data set cannot be opened, or cannot be read to its end.
    """
    data, _ = _open(source)
    if source.streaming:
        rows = data.shard(num_shards=data.num_shards, index=part.start)
        prefix, first = f"{source.path}, shard {part.start}, row", 1
    else:
        rows = data.select(range(part.start, part.end))
        prefix, first = f"{source.path}, row", part.start + 1
    try:
        for number, row in enumerate(rows, start=first):
            yield _text(row, source.text, f"{prefix} {number:,}")
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"The Hub data set {source.path} could not be read to its end "
            f"({type(error).__name__}: {error}). "
            "Run the command again: it resumes where it stopped."
        ) from error


def _text(row: dict[str, Any], column: str, where: str) -> Row:
    """Return the text of a row."""
    if column not in row:
        return UnreadableDocument(where, missing_column(column, list(row)))
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        return UnreadableDocument(where, f"{column} holds {str(text)[:100]!r}, not text")
    return text


def _open(source: Source) -> tuple[Any, str]:
    """Return the data set and its commit. Scripts of data sets are never run.

    Raises:
        UserError: the data set cannot be opened; the Hub cannot be reached, and the newest copy in
            the local cache, which `datasets` then takes, is of another commit than the source's;
            or the data set has no column of the source's name.
    """
    import datasets

    datasets.config.STREAMING_OPEN_MAX_RETRIES = TRIES
    datasets.config.STREAMING_READ_MAX_RETRIES = TRIES
    asked = hub_id(source.path) or HubId(source.path, None)
    # The revision of the source is that of the path, or the commit where the work began.
    revision = source.revision or asked.revision
    try:
        with asked_once(asked.name):
            builder = datasets.load_dataset_builder(asked.name, source.config, revision=revision)
        if source.streaming:
            data = builder.as_streaming_dataset(split=source.split)
        else:
            builder.download_and_prepare()
            data = builder.as_dataset(split=source.split)
    except Exception as error:  # datasets lets through whatever its network clients raise
        raise UserError(
            f"There is no local path {source.path}, and the Hub data set of that name cannot be "
            f"opened ({type(error).__name__}: {error}){offline()}. Check the network and the "
            "source's path, config, split and revision, or set its `path` to local files."
        ) from error

    is_commit = COMMIT.fullmatch(revision or "")
    if is_commit and builder.hash != revision:
        raise UserError(
            f"Commit {revision} of {asked.name} could not be loaded from the Hub, and the "
            f"newest copy in the local cache is of commit {builder.hash}. Connect to the network, "
            "or set the source's `revision` to the commit in the cache."
        )
    if data.column_names is not None and source.text not in data.column_names:
        raise UserError(f"{source.path} {missing_column(source.text, data.column_names)}.")
    note(asked.name, builder.hash)
    return data, builder.hash
