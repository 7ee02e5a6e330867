"""A file of GLUE: tab-separated values without quotes, and where such files come from."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sqzb.console import counted
from sqzb.encodings import likely_encoding
from sqzb.errors import UserError
from sqzb.glue.tasks import HUB_DATASET, Task

MSR_FILES = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
MSR_DEV_IDS = "dev_ids.tsv"


class Table(NamedTuple):
    """A file of tab-separated values.

    lines: the rows, undecoded; `lines[i]` is line `first_line + i` of the file.
    ended: whether the last line ends with a line break.
    """

    task: Task
    path: Path
    columns: Sequence[str]
    lines: list[bytes]
    first_line: int
    ended: bool

    def where(self, row: int) -> str:
        """Return the file and line of a row, as FILE:LINE."""
        return f"{self.path}:{self.first_line + row}"

    def select(
        self, wanted: Sequence[str], skip_short: bool = False
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield each row's number and its cells in the wanted columns.

        Other columns may be missing or extra. With `skip_short`, rows that lack a wanted column are
        skipped.

        Raises:
            UserError: a column is missing, or a row lacks one.
        """
        indices = [self._index(column) for column in wanted]
        for row, line in enumerate(self.lines):
            cells = _cells(line, self.where(row))
            if len(cells) > max(indices):
                yield row, [cells[index] for index in indices]
            elif not skip_short:
                cut = row == len(self.lines) - 1 and not self.ended
                raise UserError(
                    f"{self.where(row)}: the row has {counted(len(cells), 'column')} and "
                    f"{max(indices) + 1} are needed (columns are separated by tabs: "
                    f"{', '.join(self.columns)}). "
                    f"{'The file was cut short here: get' if cut else 'Correct the row, or get'} "
                    "the file again."
                )

    def _index(self, column: str) -> int:
        if self.columns.count(column) > 1:
            first = self.columns.index(column)
            second = self.columns.index(column, first + 1)
            raise UserError(
                f"{self.path}:1: columns {first + 1} and {second + 1} are both called {column!r}. "
                "Give each a name of its own, or get the file again."
            )
        if column in self.columns:
            return self.columns.index(column)
        present = ", ".join(map(repr, self.columns))
        problem = f"there is no column {column!r}; the columns found are {present}"
        if column == self.task.file_label and set(self.task.file_columns) <= set(self.columns):
            raise UserError(
                f"{self.path}:1: {problem}. This is a test file, whose labels GLUE does not "
                f"publish, or lacks its labels: put {self.task.name}'s own file for this split in "
                "its place."
            )
        raise UserError(
            f"{self.path}:1: {problem}. Check that this is GLUE's own file for {self.task.name}, "
            "with its header line and with tabs between the columns."
        )


def read_table(task: Task, path: Path, header: Sequence[str] = ()) -> Table:
    """Read a file whose first line names its columns.

    header: the columns of a file without such a line; a first line that names them is accepted too.

    Lines end at LF or CRLF only: text mode and str.splitlines would also split at other separators,
    which the text may contain. Lines are decoded one by one, because a whole file with one rare
    character would take four times its size.
    """
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {remedy(task)}") from error
    ended = raw.endswith(b"\n")
    lines = raw.split(b"\n")
    while lines and lines[-1] in (b"", b"\r"):
        lines.pop()
    first = [name.strip() for name in _cells(lines[0], f"{path}:1")] if lines else []
    headed = not header or set(task.file_columns) <= set(first)
    columns, lines = (first, lines[1:]) if headed else (header, lines)
    if not lines:
        raise UserError(
            f"{path} {'has a header line but no examples' if first else 'is empty'}. {remedy(task)}"
        )
    return Table(task, path, columns, lines, 2 if headed else 1, ended)


def _cells(line: bytes, where: str) -> list[str]:
    """Return the cells of a line; quotes have no meaning (csv.QUOTE_NONE)."""
    try:
        return line.removesuffix(b"\r").decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        encoding = likely_encoding(line)
        command = encoding.command(where.rpartition(":")[0])
        raise UserError(
            f"{where}: the file is not UTF-8 (byte {line[error.start]:#04x}, after {error.start} "
            f"others of the line). Its encoding is likely {encoding.words}. Convert the file "
            f"({command}), or get it again."
        ) from error


def layout(task: Task) -> str:
    """Return where the files of a task belong, for messages."""
    others = f" (or {' or '.join(task.other_files)})" if task.other_files else ""
    if task.name == "mrpc":
        train, test = MSR_FILES["train"], MSR_FILES["test"]
        others = f" (or {train}, {MSR_DEV_IDS} and {test} in place of them all)"
    return (
        f"GLUE's own files for {task.name} are {', '.join(task.files.values())}{others} "
        f"in a folder {' or '.join(task.folders)}, and --glue-dir is this folder or its parent."
    )


def remedy(task: Task) -> str:
    """Return where the files of a task belong and where they come from, for messages."""
    return (
        f"{layout(task)} Get them from gluebenchmark.com/tasks, or leave out --glue-dir to take "
        f"{HUB_DATASET} from the Hub."
    )
