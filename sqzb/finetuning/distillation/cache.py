"""Results of long computations on examples, kept in a folder with a file for each chunk."""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sqzb import console
from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.files import ASIDE, claimed, locked, read_json_object, sha256, whole_file, write_json

ABOUT = "about.json"
PATHS = ("teacher", "model")  # keys of about.json that may differ: equal weights may have moved
WAIT = 0.1  # seconds between two checks for files of other processes

Written = TypeVar("Written")
Read = TypeVar("Read")


class Cache(ABC, Generic[Written, Read]):
    """A folder with about.json, and a file for each `chunk` of `examples`, 00000 first.

    Any number of processes fill it. Byte N of about.json is the lock of file N, which the system
    releases when its process ends. The SHA-256 of each file is in a file beside it, which is
    written first.

    about: a description for readers.
    key: everything on which the content depends; the folder is named by its hash.
    examples: number of examples.
    chunk: examples of a file.
    """

    title: ClassVar[str]
    contents: ClassVar[str]  # the content of the files, for messages
    suffix: ClassVar[str]

    def __init__(
        self, parent: Path, about: dict[str, Any], key: dict[str, Any], examples: int, chunk: int
    ) -> None:
        self.folder = parent / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        self._about, self._examples, self._chunk = (
            about | {"examples": examples, "key": key},
            examples,
            chunk,
        )

    @abstractmethod
    def write(self, path: Path, content: Written) -> None:
        """Write the content of a file."""

    @abstractmethod
    def load(self, path: Path, rows: slice) -> Read:
        """Return the content of these examples' file; raise `unfit` if it is not as written."""

    def read(self, compute: Callable[[slice], Written], show: bool) -> list[Read]:
        """Return the content of all files, once this and other processes have computed them.

        compute: returns the content for a slice of examples.
        show: whether to show a progress bar.

        Raises:
            UserError: the folder is of other data or damaged, or cannot be written.
        """
        try:
            return self._read(compute, show)
        except OSError as error:
            raise UserError(
                f"The {self.contents} cannot be written to {self.folder} ({error.strerror}). "
                "Free some space, or give another distillation.cache; finished files are kept."
            ) from error

    def _read(self, compute: Callable[[slice], Written], show: bool) -> list[Read]:
        self._begin()
        left, contents = dict(enumerate(self._rows())), dict[int, Read]()
        there = self._examples - _count(
            {n: rows for n, rows in left.items() if not self._file(n).exists()}
        )
        with console.bar(self.title, self._examples, there, show) as bar:
            while left:
                for number in [n for n in left if self._file(n).exists()]:
                    contents[number] = self.load(self._file(number), left.pop(number))
                    self._check(number)
                bar.to(self._examples - _count(left))
                if left and not self._compute_one(left, compute):
                    time.sleep(WAIT)
        return [contents[number] for number in sorted(contents)]

    def _rows(self) -> list[slice]:
        starts = range(0, self._examples, self._chunk)
        return [slice(start, min(self._examples, start + self._chunk)) for start in starts]

    def unfit(self, problem: str) -> UserError:
        """Return the error for a folder that is not as it was written."""
        return UserError(
            f"The folder {self.folder} holds damaged {self.contents}: {problem}. Remove the "
            "folder: the next run computes them again."
        )

    def _compute_one(self, left: dict[int, slice], compute: Callable[[slice], Written]) -> bool:
        """Compute the first file that no other process computes; return whether there was one."""
        for number, rows in left.items():
            with claimed(self.folder / ABOUT, number) as ours:
                if ours and not self._file(number).exists():
                    self._keep(number, compute(rows))
                if ours:
                    return True
        return False

    def _keep(self, number: int, content: Written) -> None:
        """Write a file, after its hash."""
        path = self._file(number)
        unnamed = path.with_name(path.name + ASIDE)
        self.write(unnamed, content)
        with whole_file(_hash_of(path)) as aside:
            aside.write_text(f"{sha256(unnamed)}\n", encoding="ascii")
        unnamed.replace(path)

    def _check(self, number: int) -> None:
        """Compare a file with its hash, which files of older versions do not have."""
        path = self._file(number)
        if not _hash_of(path).exists():
            return
        if _hash_of(path).read_bytes().strip() != sha256(path).encode():
            raise self.unfit(f"{path.name} has changed")

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ABOUT
        while not path.exists():
            with locked(self.folder) as ours:
                if ours and not path.exists():
                    if any(self.folder.glob(f"*{self.suffix}")):
                        raise self.unfit(f"it has no {ABOUT}")
                    write_json(path, self._about)
        try:
            about = read_json_object(path)
            differing = [
                name
                for name, value in self._about.items()
                if name not in PATHS and about[name] != value
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise self.unfit(f"{ABOUT} cannot be read ({error!r})") from error
        if differing:
            raise self.unfit(f"{ABOUT} describes other data ({', '.join(differing)})")

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}{self.suffix}"


def _hash_of(path: Path) -> Path:
    """Return the file with the hash of a file."""
    return path.with_suffix(".sha256")


def _count(files: dict[int, slice]) -> int:
    return sum(rows.stop - rows.start for rows in files.values())


def sha256_of_texts(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples' texts and words."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps((example.text_a, example.text_b)).encode())
        if example.words is not None:
            digest.update(json.dumps(example.words).encode())
    return digest.hexdigest()
