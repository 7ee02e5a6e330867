"""The progress of stage one, read from the records of the shards."""

import time
from pathlib import Path

from sqzb import console
from sqzb.corpus.shards import (
    ShardRecord,
    records_of,
)
from sqzb.corpus.sources import Unit
from sqzb.corpus.text import READ


class Progress:
    """The progress of stage one, read from the records in the folder.

    `total` and `done` are sizes of units.
    """

    def __init__(self, folder: Path, work: list[Unit]) -> None:
        self._folder = folder
        self._work = work
        self._records_of: dict[int, dict[str, ShardRecord]] = {}  # by unit and name
        self._started = time.monotonic()
        self._first_bytes: int | None = None  # bytes read when `texts` was called first
        self.total = sum(unit.size for unit in work)
        self.done = 0

    def look(self, number: int) -> bool:
        """Read the records of a unit again; return whether the unit is finished."""
        records: dict[str, ShardRecord] = {}
        for name, record in records_of(self._folder, number):
            if record is not None:
                records[name] = record
        before = self._records_of.get(number, {})
        self.done += self._size(number, records) - self._size(number, before)
        self._records_of[number] = records
        return _is_finished(records)

    def _size(self, number: int, records: dict[str, ShardRecord]) -> int:
        """Return the finished part of a unit's size, which may be only an estimate of its text."""
        size = self._work[number].size
        if _is_finished(records):
            return size
        bytes_read: int = sum(record["counts"][READ]["bytes"] for record in records.values())
        return min(size, bytes_read)

    def records(self) -> dict[str, ShardRecord]:
        """Return the records of all units, in order, by name."""
        records: dict[str, ShardRecord] = {}
        for number in sorted(self._records_of):
            records |= self._records_of[number]
        return records

    def unreadable(self) -> tuple[int, list[str]]:
        """Return the number of unreadable documents, and location and reason of some of them."""
        documents = 0
        named: list[str] = []
        for record in self.records().values():
            documents += record["bad"]["documents"]
            named += record["bad"]["named"]
        return documents, named

    def texts(self) -> tuple[str, str, str]:
        """Return speed, documents and tokens for the progress bar."""
        documents = tokens = bytes_read = 0
        for record in self.records().values():
            documents += record["counts"][READ]["documents"]
            tokens += record["tokens"]
            bytes_read += record["counts"][READ]["bytes"]

        if self._first_bytes is None:
            self._first_bytes = bytes_read
        seconds = max(1e-9, time.monotonic() - self._started)
        speed = (bytes_read - self._first_bytes) / seconds
        return (
            f"{speed / 1e6:.1f} MB/s",
            console.counted(documents, "document"),
            console.counted(tokens, "token"),
        )


def _is_finished(records: dict[str, ShardRecord]) -> bool:
    return any(record["last"] for record in records.values())
