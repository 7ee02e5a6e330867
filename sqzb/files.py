"""Atomic files and folders: written under another name, flushed to disk, then renamed."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ASIDE = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block raises no error."""
    aside = path.with_name(path.name + ASIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it to `path` if the block ends without an error.

    A folder that exists at `path` is replaced.
    """
    aside = path.with_name(path.name + ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for inside in sorted(aside.rglob("*"), reverse=True):
            _flush(inside)
        _flush(aside)
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock the folder while the block runs, and yield whether the lock was acquired.

    The lock is not acquired if another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)


@contextmanager
def claimed(path: Path, number: int) -> Iterator[bool]:
    """Lock byte `number` of the file while the block runs, and yield whether it was acquired.

    The file may be shorter than `number`. Closing the file anywhere in this process releases all
    its locks on the file (POSIX record locks).
    """
    with path.open("r+b") as opened:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            ours = True
        except (BlockingIOError, PermissionError):  # POSIX permits either
            ours = False
        yield ours


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON in UTF-8."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
