"""A command of sqzb in an environment that fails at a chosen moment.

    python faulty.py FAULT NUMBER COMMAND ...

FAULT is the name of an errno, which the NUMBERth writing call in the folder raises, and each later
one with `-always` behind the name; `vanish`, where the folder that is written to is removed before
that call; or `file-size`, where no file may have more than NUMBER bytes.
"""

import builtins
import errno
import io
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault:
    """The calls that write under the current folder, and the one that fails."""

    def __init__(self, kind: str, number: int) -> None:
        self._kind, _, always = kind.partition("-")
        self._always = bool(always)
        self._left = number
        self._folder = os.getcwd()

    def at(self, path: object) -> None:
        """Count a call that writes to `path`; fail or remove, if it is the one."""
        if not isinstance(path, str | os.PathLike):
            return
        absolute = os.path.abspath(os.fspath(path))
        if not str(absolute).startswith(self._folder + os.sep):
            return
        self._left -= 1
        if self._left > 0 or (self._left < 0 and not self._always):
            return
        if self._kind == "vanish":
            top = Path(str(absolute)).relative_to(self._folder).parts[0]
            shutil.rmtree(os.path.join(self._folder, top), ignore_errors=True)
            return
        number = getattr(errno, self._kind)
        raise OSError(number, os.strerror(number), str(path))

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of os that writes to its last path."""

        def call(*arguments: Any, **options: Any) -> Any:
            paths = [value for value in arguments[:2] if isinstance(value, str | os.PathLike)]
            if paths:
                self.at(paths[-1])
            return function(*arguments, **options)

        return call

    def opener(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `open`, with the fault where it writes."""

        def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                self.at(file)
            return function(file, mode, *arguments, **options)

        return call

    def os_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `os.open`, with the fault where it writes."""

        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
            if flags & WRITING_FLAGS:
                self.at(path)
            return function(path, flags, *arguments, **options)

        return call


def main() -> None:
    """Set the fault, and be the command."""
    kind, number, *arguments = sys.argv[1:]
    from sqzb.cli import main as command

    if kind == "file-size":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), int(number)))
    else:
        fault = Fault(kind, int(number))
        for name in ("replace", "rename", "mkdir", "link", "symlink", "truncate"):
            setattr(os, name, fault.wrapped(getattr(os, name)))
        os.open = fault.os_open(os.open)
        builtins.open = io.open = fault.opener(builtins.open)
    sys.argv = ["sqzb", *arguments]
    command()


if __name__ == "__main__":
    main()
