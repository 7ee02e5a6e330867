"""What a person sees while a command runs: a bar on a terminal, a line now and then where there is none."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_SECONDS = 30.0

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Bar:
    """Progress towards `total`; `advance` moves it and `text` says how it goes."""

    def __init__(self, title: str, total: int, done: int, progress: Progress | None) -> None:
        self._title, self._total, self._done = title, total, done
        self._progress = progress
        self._task = progress.add_task(title, total=total, completed=done, text="") if progress is not None else None
        self._started, self._said, self._first = time.monotonic(), time.monotonic(), done

    def advance(self, by: int = 1, text: str | None = None) -> None:
        self._done += by
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)
            if text is not None:
                self._progress.update(self._task, text=text)
        elif time.monotonic() - self._said >= PLAIN_SECONDS or self._done == self._total:
            self._said = time.monotonic()
            out.print(f"{self._title} {self._done}/{self._total}  {text or ''}  {self._left()} left")

    def _left(self) -> str:
        moved = self._done - self._first
        seconds = (time.monotonic() - self._started) / max(1, moved) * (self._total - self._done)
        return duration(seconds)


@contextmanager
def bar(title: str, total: int, done: int = 0, show: bool = True) -> Iterator[Bar]:
    """A bar on standard output; without a terminal a line every 30 seconds, and with `show` off nothing."""
    if not show or not out.is_terminal:
        yield Bar(title, total, done, None) if show else _Silent(title, total, done, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=out) as progress:
        yield Bar(title, total, done, progress)


class _Silent(Bar):
    def advance(self, by: int = 1, text: str | None = None) -> None:
        pass


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column to the left, the others to the right."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        drawn.add_column(name, justify="right" if index else "left")
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn)


def error(message: str) -> None:
    err.print(f"[bold red]error:[/] {_plain(message)}")


def warn(message: str) -> None:
    err.print(f"[bold yellow]warning:[/] {_plain(message)}")


def duration(seconds: float) -> str:
    """Seconds as 12 s, 3 min 20 s or 4 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
