"""Atomic files and folders: written under another name, flushed to disk, then renamed."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from sqzb.errors import WRITING, UserError

ASIDE = ".partial"
_BLOCK = 4096  # bytes that a trial writes: a full disk may take an empty file
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a new empty file beside `path`; rename it to `path` if the block raises no error.

    A device or a pipe at `path`, such as /dev/stdout, takes the content and stays what it is.

    Raises:
        OSError: the file cannot be written; the error names `path`.
        UserError: the reader of a pipe has ended.
    """
    if _is_stream(path):
        with TemporaryDirectory() as folder, naming(path):
            aside = Path(folder) / path.name
            aside.touch()
            yield aside
            try:
                with aside.open("rb") as source, path.open("wb") as stream:
                    shutil.copyfileobj(source, stream)
            except BrokenPipeError as error:  # which would end a command of typer without a word
                raise UserError(
                    f"{path} cannot be written: the reader of this pipe has ended. Give a file, or "
                    "a reader that reads to the end."
                ) from error
        return
    if path.is_dir():
        raise _os_error(errno.EISDIR, path)
    aside = path.with_name(path.name + ASIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path, aside):
        descriptor = _create(aside)
        try:
            yield aside
            _flush(aside)
            os.replace(aside, path)
            _flush(path.parent)
        finally:
            aside.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it to `path` if the block ends without an error.

    A folder that exists at `path` is replaced.

    Raises:
        OSError: the folder cannot be written; the error names `path`, or a file inside.
    """
    aside = path.with_name(path.name + ASIDE)
    if aside.is_symlink():
        aside.unlink()
    shutil.rmtree(aside, ignore_errors=True)
    with naming(path, aside):
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


def _create(aside: Path) -> int:
    """Create and lock a file that no other process has, and return its descriptor.

    A link is never followed. A file that a killed process left is replaced.

    Raises:
        OSError: the file cannot be created, or another process is writing it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    if aside.is_symlink():
        aside.unlink()
    elif aside.exists():
        left = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()
        except BlockingIOError as error:
            raise _os_error(errno.EAGAIN, aside) from error
        finally:
            os.close(left)
    descriptor = os.open(aside, flags, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


@contextmanager
def naming(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Let errors of writing name `path`, where they name `aside` or nothing.

    Raises:
        OSError: the block raised one.
    """
    try:
        yield
    except OSError as error:
        # Python names no path where the write to an open file fails.
        is_unnamed = error.filename is None and error.errno in WRITING
        is_aside = aside is not None and error.filename == str(aside)
        # A folder in the way of `aside` keeps its own name.
        if error.errno is None or error.errno == errno.EISDIR or not (is_unnamed or is_aside):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def check_output(path: Path, overwrite: bool = False) -> None:
    """Check before any work that a file can be written.

    Raises:
        UserError: the file exists, and `overwrite` is off.
        OSError: the file cannot be written.
    """
    if _is_stream(path):
        return
    if path.is_dir():
        raise _os_error(errno.EISDIR, path)
    if path.is_symlink() and not path.exists():
        raise _os_error(errno.ENOENT, path)
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists and is not overwritten. Give another file, or give --overwrite too."
        )
    check_output_folder(path.parent)


def check_output_folder(folder: Path) -> None:
    """Check before any work that files can be written into a folder, which need not exist yet.

    Raises:
        OSError: the folder is a file, or its disk, permissions or quota refuse a file.
    """
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise _os_error(errno.EEXIST, nearest)
    try:
        with TemporaryFile(dir=nearest) as trial:
            trial.write(bytes(_BLOCK))
    except OSError as error:
        raise _os_error(error.errno or errno.EIO, nearest) from error


def _is_stream(path: Path) -> bool:
    """Return whether the path is a device, a pipe or a socket, which a rename would replace."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


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
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with whole_file(path) as aside:
        # Only the surrogates of file names that are not UTF-8 are replaced, by JSON's own escapes.
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the content is no JSON object in UTF-8.
    """
    return parse_json_object(path.read_bytes())


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`.

    Raises:
        ValueError: the content is no JSON object in UTF-8.
    """
    text = content.decode("utf-8")
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            # Half of a character, which nothing could print, does not become UTF-8.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} in place of an object")
    return value


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
