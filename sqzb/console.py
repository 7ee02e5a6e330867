"""What a person sees while a command runs: a bar on a terminal, a line now and then where there is none."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 30.0
_SAID = ("description", "fields[count]", "fields[text]")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


Unit = Callable[[int], str]


class Bar:
    """Progress towards `total`; `advance` or `to` moves it and `text` says how it goes."""

    def __init__(
        self, title: str, total: int, done: int, unit: Unit, progress: Progress | None
    ) -> None:
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._progress, self._text = progress, ""
        self._started, self._said, self._first = time.monotonic(), time.monotonic(), done
        if progress is not None:
            self._task = progress.add_task(
                title, total=total, completed=done, text="", count=self._count()
            )

    def advance(self, by: int = 1, text: str | None = None) -> None:
        self.to(self._done + by, text)

    def to(self, done: int, text: str | None = None) -> None:
        finished = done == self._total != self._done
        self._done = done
        if self._progress is not None:
            self._text = self._text if text is None else text
            self._progress.update(self._task, completed=done, count=self._count(), text=self._text)
        elif finished or time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            out.print(Text(f"{self._title} {self._count()}  {text or ''}  {self._left()} left"))

    def _count(self) -> str:
        return f"{self._unit(self._done)}/{self._unit(self._total)}"

    def _left(self) -> str:
        moved = self._done - self._first
        if self._done < self._total and moved <= 0:
            return "unknown time"
        return duration(
            (time.monotonic() - self._started) / max(1, moved) * (self._total - self._done)
        )


@contextmanager
def bar(
    title: str, total: int, done: int = 0, show: bool = True, unit: Unit = "{:,}".format
) -> Iterator[Bar]:
    """A bar on standard output; without a terminal a line every 30 seconds, and with `show` off nothing.

    unit: how a count is written.
    """
    if not show or not out.is_terminal:
        yield (Bar if show else _Silent)(title, total, done, unit, None)
        return
    name, count, text = (TextColumn(f"{{task.{what}}}", markup=False) for what in _SAID)
    with Progress(
        name, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), text, console=out
    ) as progress:
        yield Bar(title, total, done, unit, progress)


class _Silent(Bar):
    def to(self, done: int, text: str | None = None) -> None:
        pass


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column to the left, the others to the right. Brackets in the rows mean nothing."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        drawn.add_column(name, justify="right" if index else "left")
    for row in rows:
        drawn.add_row(*map(Text, row))
    out.print(drawn)


def error(message: str) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message))


def warn(message: str) -> None:
    err.print(Text.assemble(("warning: ", "bold yellow"), message))


def size(n: int) -> str:
    """Bytes as 12.3 MB, in powers of 1,000."""
    return decimal(n)


def duration(seconds: float) -> str:
    """Seconds as 12 s, 3 min 20 s or 4 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
