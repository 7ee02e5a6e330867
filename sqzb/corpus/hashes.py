"""The hashes of a corpus's files, compared in a thread while a run already reads the files."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqzb.errors import UserError
from sqzb.files import sha256


class HashCheck:
    """The comparison of files with the hashes in their manifest, which begins at once.

    Of a run's processes on one machine, the first compares all files, because they share them. The
    thread reads files that the run needs anyway.

    folder: the corpus.
    files: size and sha256 of each file, by its path in the folder.
    advice: what to do about a damaged file.
    """

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, Any]], advice: str) -> None:
        self._folder, self._files, self._advice = folder, files, advice
        self._damaged: list[str] = []
        self._thread = threading.Thread(target=self._compare, daemon=True)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            self._thread.start()

    def wait(self) -> None:
        """Wait until all files are compared.

        Raises:
            UserError: files are damaged.
        """
        if self._thread.ident is not None:
            self._thread.join()
        self._raise_if_damaged()

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn an error of the block, which reads the files, into one about damaged files.

        Raises:
            UserError: files are damaged, as far as they are compared.
        """
        self._raise_if_damaged()
        try:
            yield
        except (IndexError, ValueError, MemoryError):
            if self._thread.ident is None:
                self._compare()
            self.wait()
            raise

    def _compare(self) -> None:
        for name, about in self._files.items():
            try:
                is_whole = sha256(self._folder / name) == about["sha256"]
            except OSError:
                is_whole = False
            if not is_whole:
                self._damaged.append(name)

    def _raise_if_damaged(self) -> None:
        if self._damaged:
            others = f" and {len(self._damaged) - 1} more" if len(self._damaged) > 1 else ""
            raise UserError(
                f"The content of {self._folder / self._damaged[0]}{others} has changed since the "
                f"corpus was made. {self._advice}"
            )
