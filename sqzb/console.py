"""Console output: progress bars on a terminal, periodic lines elsewhere, tables, errors."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 30.0
_TEXT_FIELDS = ("description", "fields[count]", "fields[text]")

# Names of columns, labels and files may hold square brackets and colons: nothing is markup.
_PLAIN = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the line end

out = Console(**_PLAIN)  # type: ignore[arg-type]
err = Console(stderr=True, **_PLAIN)  # type: ignore[arg-type]


Unit = Callable[[int], str]


class Bar:
    """Progress towards `total`, moved by `advance` and `to`.

    title: name of the work.
    done: units that are finished at the start.
    unit: formats a count.
    progress: rich's progress on a terminal; None prints a line every PLAIN_SECONDS.
    """

    def __init__(
        self, title: str, total: int, done: int, unit: Unit, progress: Progress | None
    ) -> None:
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._progress, self._text = progress, ""
        self._started, self._printed, self._first = time.monotonic(), time.monotonic(), done
        if progress is not None:
            self._task = progress.add_task(
                title, total=total, completed=done, text="", count=self._count()
            )

    def advance(self, by: int = 1, text: str | None = None) -> None:
        """Move the bar by `by` units and show `text` behind it."""
        self.to(self._done + by, text)

    def to(self, done: int, text: str | None = None) -> None:
        """Move the bar to `done` units and show `text` behind it."""
        finished = done == self._total != self._done
        self._done = done
        if self._progress is not None:
            self._text = self._text if text is None else text
            self._progress.update(self._task, completed=done, count=self._count(), text=self._text)
        elif finished or time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            out.print(Text(f"{self._title} {self._count()}  {text or ''}  {self._left()} left"))

    def _count(self) -> str:
        return f"{self._unit(self._done)}/{self._unit(self._total)}"

    def _left(self) -> str:
        moved, missing = self._done - self._first, self._total - self._done
        if missing > 0 and moved <= 0:
            return "unknown time"
        elapsed = time.monotonic() - self._started
        return duration(elapsed / max(1, moved) * missing)


@contextmanager
def bar(
    title: str, total: int, done: int = 0, show: bool = True, unit: Unit = "{:,}".format
) -> Iterator[Bar]:
    """Yield a progress bar on standard output.

    Without a terminal, a line is printed every 30 seconds. With `show` off, nothing is printed.

    unit: formats a count.
    """
    if not show or not out.is_terminal:
        yield (Bar if show else _Silent)(title, total, done, unit, None)
        return
    name, count, text = (TextColumn(f"{{task.{field}}}", markup=False) for field in _TEXT_FIELDS)
    with Progress(
        name, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), text, console=out
    ) as progress:
        yield Bar(title, total, done, unit, progress)


class _Silent(Bar):
    """A bar that prints nothing."""

    def to(self, done: int, text: str | None = None) -> None:
        pass


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column left-aligned, the others right-aligned.

    Square brackets are printed as they are, not read as rich's markup.
    """
    drawn = Table(title=Text(title), title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        drawn.add_column(Text(visible(name)), justify="right" if index else "left")
    for row in rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    out.print(drawn)


def visible(text: str) -> str:
    """Return text with hexadecimal escapes for control characters, which a terminal obeys."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def error(message: str) -> None:
    """Print an error on standard error."""
    err.print(Text.assemble(("error: ", "bold red"), message))


def warn(message: str) -> None:
    """Print a warning on standard error."""
    err.print(Text.assemble(("warning: ", "bold yellow"), message))


@contextmanager
def brief_retries() -> Iterator[None]:
    """Replace the Hub client's lines about each failed attempt by one warning."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    warned = False

    def is_other(record: logging.LogRecord) -> bool:
        nonlocal warned
        text = record.getMessage()
        if "thrown while requesting" not in text and "[Retry " not in text:
            return True
        if not warned:
            warn("The Hub does not respond. Trying again for up to half a minute ...")
        warned = True
        return False

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: 1 document, 1,200 documents; plural: where it is irregular."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def size(n: int) -> str:
    """Return a number of bytes as text such as 12.3 MB, in powers of 1,000."""
    return decimal(n)


def duration(seconds: float) -> str:
    """Return seconds as text such as 12 s, 3 min 20 s or 4 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
