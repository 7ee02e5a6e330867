"""Console output: progress bars on a terminal, periodic lines elsewhere, tables, errors.

All output of sqzb passes here. Text is never markup, and control characters are shown, not obeyed.
"""

import codecs
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.filesize import decimal
from rich.text import Text

from sqzb.plain_text import visible as visible
from sqzb.plain_text import wrapped

PLAIN_SECONDS = 30.0
REFRESHES = 8  # of a terminal's bar in a second
ELLIPSIS = "\u2026"
TITLE_WIDTH, LEAST_BAR, MOST_BAR = 12, 10, 40  # columns

_ESCAPED = "sqzb.escaped"  # handler of characters that an encoding lacks


class _Stream:
    """Standard output or standard error, whose loss does not end the work.

    After the first write that fails, for example because the reader of a pipe has ended, one
    warning is printed, and further text is dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def _target(self) -> IO[str]:
        target = getattr(sys, self._name)
        # While a progress bar is shown, rich puts itself in front of the stream.
        stream: IO[str] = getattr(target, "rich_proxied_file", target)
        return stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            self._target().write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand all text to the system."""
        try:
            self._target().flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        silence(self._target())
        if self._name == "stdout":
            reason = "its reader has ended" if isinstance(error, BrokenPipeError) else str(error)
            warn(f"Standard output is lost ({reason}). The work continues without it.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target(), name)


class PlainConsole(Console):
    """A console for plain text, whose lines end between words on a terminal."""

    def __init__(self, file: Any, **options: Any) -> None:
        # Names of columns, labels and files may hold square brackets and colons.
        super().__init__(
            file=file, highlight=False, soft_wrap=True, markup=False, emoji=False, **options
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; control characters of strings are shown, not obeyed.

        soft_wrap: given for text to be copied, whose lines only the terminal divides.
        """
        wraps = "soft_wrap" not in options
        shown = (self.shown(part, wraps) if isinstance(part, str) else part for part in objects)
        super().print(*shown, **options)

    def shown(self, text: str, wraps: bool = True) -> str:
        """Return text as it is printed. wraps: whether its lines end between words."""
        text = visible(text)
        return wrapped(text, self.width) if wraps and self.is_terminal else text


out, err = PlainConsole(_Stream("stdout")), PlainConsole(_Stream("stderr"))

Unit = Callable[[int], str]


class Bar:
    """Progress towards `total`, moved by `advance` and `to`.

    title: name of the work.
    total: 0 where it is unknown; then the bar has the time since its start.
    done: units that are finished at the start.
    unit: formats a count.
    live: whether a terminal shows the bar; otherwise a line is printed every PLAIN_SECONDS.
    """

    def __init__(self, title: str, total: int, done: int, unit: Unit, live: bool) -> None:
        self._title, self._total, self._done, self._unit = visible(title), total, done, unit
        self._live, self._texts = live, list[str]()
        self._started, self._printed, self._first = time.monotonic(), time.monotonic(), done

    def advance(self, by: int = 1, *texts: str) -> None:
        """Move the bar by `by` units and show `texts` behind it."""
        self.to(self._done + by, *texts)

    def to(self, done: int, *texts: str) -> None:
        """Move the bar to `done` units and show `texts` behind it, the most important first.

        Without texts, the texts of the last call stay.
        """
        finished = done == self._total != self._done
        self._done = done
        if texts:
            self._texts = [visible(text) for text in texts if text]
        is_due = finished or time.monotonic() - self._printed >= PLAIN_SECONDS
        if is_due and not self._live:
            self._printed = time.monotonic()
            stamp = datetime.now().isoformat(sep=" ", timespec="seconds")
            out.print("  ".join([stamp, self._title, *self._items()]))

    def _items(self) -> list[str]:
        """Return what the bar says behind its title, the most important first."""
        if not self._total:  # how much is left is unknown
            return [duration(time.monotonic() - self._started), *self._texts]
        share = f"{self._done / self._total:.0%}"
        count = f"{self._unit(self._done)}/{self._unit(self._total)}"
        return [share, count, f"{self._left()} left", *self._texts]

    def _left(self) -> str:
        moved, missing = self._done - self._first, self._total - self._done
        if missing > 0 and moved <= 0:
            return "unknown time"
        elapsed = time.monotonic() - self._started
        return duration(elapsed / max(1, moved) * missing)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the bar as one line, without the last items where the terminal is narrow.

        No item is cut, because half a number is another number.
        """
        width = options.max_width
        shown = Text(self._title, no_wrap=True)
        shown.truncate(max(TITLE_WIDTH, width // 4), overflow="ellipsis")
        title_end = len(shown)
        for item in self._items():
            if shown.cell_len + 2 + cell_len(item) > width:
                break
            shown.append(f"  {item}")

        room = min(MOST_BAR, width - shown.cell_len - 2)
        if room >= LEAST_BAR and self._total:
            filled = round(room * min(1.0, self._done / self._total))
            mark = "-" if options.ascii_only else "\u2501"
            bar = Text.assemble("  ", (mark * filled, "green"), (mark * (room - filled), "dim"))
            shown = shown[:title_end] + bar + shown[title_end:]
        yield shown


@contextmanager
def bar(
    title: str, total: int, done: int = 0, show: bool = True, unit: Unit = "{:,}".format
) -> Iterator[Bar]:
    """Yield a progress bar on standard output.

    Without a terminal, a line is printed every 30 seconds. With `show` off, nothing is printed.

    unit: formats a count.
    """
    if not show or not out.is_terminal:
        yield (Bar if show else _Silent)(title, total, done, unit, False)
        return
    from rich.live import Live  # here, as Table below: `sqzb --help` needs neither

    drawn = Bar(title, total, done, unit, True)
    with Live(drawn, console=out, refresh_per_second=REFRESHES):
        yield drawn


# A picture for a width in columns and a height in lines: its lines, each of (text, style).
Draw = Callable[[int, int], Sequence[Sequence[tuple[str, str]]]]


class _Picture:
    """Lines that fill a terminal again and again."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self._draw(options.max_width, console.height - 1):
            yield styled(*line)


@contextmanager
def picture(draw: Draw) -> Iterator[Callable[[], None]]:
    """Yield a function that shows the picture anew, in place of the one before.

    Without a terminal, a picture is printed every 30 seconds, and one at the end.
    """
    if out.is_terminal:
        from rich.live import Live

        with Live(_Picture(draw), console=out, auto_refresh=False) as live:
            yield live.refresh
        return
    printed = -PLAIN_SECONDS

    def show() -> None:
        nonlocal printed
        if time.monotonic() - printed >= PLAIN_SECONDS:
            printed = time.monotonic()
            out.print(datetime.now().isoformat(sep=" ", timespec="seconds"))
            print_picture(draw)

    try:
        yield show
    finally:
        print_picture(draw)


def print_picture(draw: Draw) -> None:
    """Print a picture, of whatever height."""
    for line in draw(out.width, sys.maxsize):
        out.print(styled(*line))


class _Silent(Bar):
    """A bar that prints nothing."""

    def to(self, done: int, *texts: str) -> None:
        pass


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column left-aligned, the others right-aligned."""
    from rich.table import Table

    drawn = Table(title=Text(visible(title)), title_justify="left", title_style="bold")
    # Rows of several lines need a line between them, to tell where each ends.
    drawn.show_lines = any("\n" in "".join(row) for row in rows)
    for index, name in enumerate(header):
        drawn.add_column(Text(visible(name)), justify="right" if index else "left")
    for row in rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    out.print(drawn)


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print names with their facts, which wrap at words."""
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column()
    for name, fact in rows:
        drawn.add_row(Text(visible(name)), Text(visible(fact)))
    out.print(drawn)


def next_commands(commands: Iterable[str]) -> None:
    """Print commands to type next, a line each, which can be copied as they are."""
    out.print("\n".join(["Next:", *(f"  {command}" for command in commands)]), soft_wrap=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return one text of strings and of (string, style), to print."""
    texts = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((visible(text), style) for text, style in texts))


def lines(rows: Iterable[Sequence[str]]) -> None:
    """Print results on standard output: a line for each row, with tabs between its columns.

    Raises:
        SystemExit: the reader of a pipe has enough, as `head` has; the exit code is a shell's.
        OSError: standard output cannot be written for another reason.
    """
    text = "".join("\t".join(map(_one_line, columns)) + "\n" for columns in rows)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        silence(sys.stdout)
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number), "Standard output") from error


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def error(message: str) -> None:
    """Print an error on standard error."""
    _tell("error:", "bold red", message)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    _tell("warning:", "bold yellow", message)


def _tell(kind: str, style: str, message: str) -> None:
    text = err.shown(f"{kind} {message}")
    err.print(styled((kind, style), text.removeprefix(kind)))


def prepare_streams() -> None:
    r"""Let standard output and standard error take every character, and be there.

    A character that their encoding lacks is written as JSON has it, such as \u00e9.
    """
    codecs.register_error(_ESCAPED, _as_json)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        else:
            with suppress(OSError):  # a stream whose descriptor was replaced cannot change
                stream.reconfigure(errors=_ESCAPED)


def end_streams() -> None:
    """Hand all text to the system; Python would report an error at its end, with another code."""
    for console in (out, err):
        console.file.flush()


def _as_json(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def silence(stream: IO[str]) -> None:
    """Send what is still written to a lost stream to nowhere, so that Python can end quietly."""
    with suppress(OSError, ValueError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def padded(text: str, width: int) -> str:
    """Return text of exactly `width` columns; of a longer text its end, which tells paths apart."""
    text = visible(text)
    if cell_len(text) > width:
        while cell_len(text) >= width:
            text = text[1:]
        text = f"{'~' if out.options.ascii_only else ELLIPSIS}{text}"
    return set_cell_size(text, width)


def fitting(items: Iterable[str], width: int) -> str:
    """Return the first items that fit a width together; none is cut."""
    line = ""
    for item in items:
        longer = f"{line}  {item}" if line else item
        if cell_len(longer) > width:
            break
        line = longer
    return line


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
