"""The console: a line now and then where there is no terminal, and text as it is."""

import codecs
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sqzb import console

printable = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z", "M")), max_size=30)
markup = st.lists(
    st.sampled_from(["[", "]", "/", "\\", "red", "[bold]", "[/x]", ":smile:", " a"])
).map("".join)


class Screen:
    """Standard output and error without a terminal, and a clock that is set by hand."""

    def __init__(self, patch: pytest.MonkeyPatch, terminal: bool = False) -> None:
        self.now = 1000.0
        self._out, self._err = StringIO(), StringIO()
        for name, file in (("out", self._out), ("err", self._err)):
            plain = console.PlainConsole(file, force_terminal=terminal, width=200)
            patch.setattr(console, name, plain)
        patch.setattr(console, "time", SimpleNamespace(monotonic=lambda: self.now))

    @property
    def out(self) -> list[str]:
        return self._out.getvalue().splitlines()

    def unstamped(self) -> list[str]:
        """The lines without their time stamps."""
        lines = self.out
        assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
        return [line[21:] for line in lines]

    @property
    def err(self) -> list[str]:
        return self._err.getvalue().splitlines()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


steps = st.lists(st.tuples(st.floats(0, 70), st.integers(1, 5)), max_size=20)


@given(steps, st.integers(0, 10), st.booleans(), st.booleans())
def test_a_line_every_30_seconds_and_at_the_end(
    moves: list[tuple[float, int]], done: int, whole: bool, absolute: bool
) -> None:
    total = done + sum(by for _, by in moves) + (not whole)
    with pytest.MonkeyPatch.context() as patch:
        screen = Screen(patch)
        said, due = screen.now, []
        with console.bar("Reading", total, done) as bar:
            for seconds, by in moves:
                screen.now += seconds
                done += by
                if absolute:
                    bar.to(done, "text")
                else:
                    bar.advance(by, "text")
                if screen.now - said >= console.PLAIN_SECONDS or done == total:
                    said = screen.now
                    due.append(f"Reading  {done / total:.0%}  {done}/{total}  ")
        lines = screen.unstamped()
        assert len(lines) == len(due)
        assert all(line.startswith(start) for line, start in zip(lines, due, strict=True))
        assert all(line.endswith(" left  text") for line in lines)
        assert not (whole and moves) or lines[-1].endswith("  0 s left  text")


def test_bytes_are_counted_with_their_unit(screen: Screen) -> None:
    with console.bar("Preparing", 4_000_000, unit=console.size) as bar:
        screen.now += 30
        bar.to(1_000_000)
        screen.now += 30
        bar.to(4_000_000)
    assert screen.unstamped() == [
        "Preparing  25%  1.0 MB/4.0 MB  1 min 30 s left",
        "Preparing  100%  4.0 MB/4.0 MB  0 s left",
    ]


def test_the_time_left_counts_from_where_it_began(screen: Screen) -> None:
    with console.bar("Training", 1500, done=1000) as bar:
        screen.now += 100
        bar.advance(100, "loss 2", "", "9 tok/s")
    assert screen.unstamped() == ["Training  73%  1,100/1,500  6 min 40 s left  loss 2  9 tok/s"]


def test_without_a_move_the_time_left_is_unknown(screen: Screen) -> None:
    with console.bar("Reading", 10, done=4) as bar:
        for _ in range(4):
            screen.now += 20
            bar.to(4)
    assert screen.unstamped() == ["Reading  40%  4/10  unknown time left"] * 2


def test_without_a_total_the_bar_has_the_time_since_its_start(screen: Screen) -> None:
    with console.bar("Merging", 0) as bar:
        for _ in range(3):
            screen.now += 25
            bar.to(0, "of 12")
    assert screen.unstamped() == ["Merging  50 s  of 12"]


def test_the_end_is_said_once(screen: Screen) -> None:
    with console.bar("Reading", 3) as bar:
        for done in (2, 3, 3, 3):
            bar.to(done)
    with console.bar("Nothing", 0) as bar:
        bar.to(0)
    assert screen.unstamped() == ["Reading  100%  3/3  0 s left"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_that_is_off_says_nothing(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen = Screen(monkeypatch, terminal)
    with console.bar("Reading", 2, show=False) as bar:
        screen.now += 100
        bar.advance(2, "text")
    assert screen.out == []


def test_a_terminal_shows_title_count_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, terminal=True)
    with console.bar("Check[/x]ing", 4000, unit=console.size) as bar:
        bar.advance(1000, "file[/a]")
        bar.advance(3000)
    shown = "\n".join(screen.out)
    assert "Check[/x]ing" in shown and "4.0 kB/4.0 kB" in shown and "file[/a]" in shown


IMPORTANT = ["98%", "55,000/56,000", "1 h 22 min left", "loss 2.345", "1,364,000 tok/s"]


@given(st.integers(20, 200), st.text("ab\u4e2d [", max_size=60), st.booleans())
def test_a_terminals_line_fits_and_cuts_no_item(width: int, title: str, ascii_only: bool) -> None:
    """The most important items stay; what does not fit is left out whole."""
    bar = console.Bar(title, 56_000, 0, "{:,}".format, live=True)
    bar._started -= 270_600
    bar.to(55_000, *IMPORTANT[3:], "mlm_accuracy 3.4%")
    screen = Console(file=StringIO(), width=width, legacy_windows=False)
    options = screen.options.update(width=width)
    options.encoding = "ascii" if ascii_only else "utf-8"
    (line,) = bar.__rich_console__(screen, options)
    assert line.cell_len <= width
    assert line.plain.isascii() or not ascii_only or not title.isascii() or "\u2026" in line.plain
    shown = [item for item in re.split(r"  +", line.plain) if item in IMPORTANT]
    assert shown == IMPORTANT[: len(shown)]
    if len(shown) < len(IMPORTANT):
        assert line.cell_len + 2 + len(IMPORTANT[len(shown)]) > width


@pytest.mark.parametrize(("width", "items"), [(80, 5), (120, 6)])
def test_a_run_at_the_widths_of_terminals(width: int, items: int) -> None:
    bar = console.Bar("Pretraining", 56_000, 0, "{:,}".format, live=True)
    bar._started -= 270_600
    bar.to(55_000, *IMPORTANT[3:], "mlm_accuracy 3.4%")
    (line,) = bar.__rich_console__(Console(), Console().options.update(width=width))
    assert sum(item in line.plain for item in [*IMPORTANT, "mlm_accuracy 3.4%"]) == items


@given(printable | markup)
def test_text_is_printed_as_it_is(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        screen = Screen(patch)
        console.error(text)
        console.warn(text)
        with console.bar(text, 1) as bar:
            bar.to(1, text)
        assert screen.err == [f"error: {text}", f"warning: {text}"]
        assert screen.unstamped() == [f"{text}  100%  1/1  0 s left" + f"  {text}" * bool(text)]


def test_a_table_has_all_cells(screen: Screen) -> None:
    console.table("What was learnt", ("", "measured"), [("loss", "5.22"), ("accuracy", "16.3 %")])
    shown = "\n".join(screen.out)
    assert screen.out[0] == "What was learnt" and all(
        word in shown for word in ("loss", "5.22", "measured", "16.3 %")
    )


@pytest.mark.parametrize("text", ["one line", "two\nlines"])
def test_rows_of_several_lines_are_divided(screen: Screen, text: str) -> None:
    console.table("", ("text", "loss"), [(text, "1"), (text, "2"), (text, "3")])
    assert sum("├" in line for line in screen.out) == (2 if "\n" in text else 0)


def test_brackets_in_a_table_mean_nothing(screen: Screen) -> None:
    """Nor in its title and header, which hold names of files, columns and labels."""
    console.table("What [/x] learnt", ("text [/x]", ":smile:"), [("[bold]a [/x] b", "1")])
    shown = "\n".join(screen.out)
    for text in ("What [/x] learnt", "text [/x]", ":smile:", "[bold]a [/x] b"):
        assert text in shown


@given(printable | markup)
def test_messages_are_printed_as_they_are(text: str) -> None:
    """Paths of files and names of columns are in them."""
    with console.out.capture() as captured:
        console.out.print(f"{text}.")
    assert captured.get() == f"{text}.\n"


def test_a_table_obeys_no_control_characters(screen: Screen) -> None:
    console.table("", ("label\x1b[2J",), [("a\tb\x07\x9b31mc",), ("two\nlines",)])
    shown = "\n".join(screen.out)
    assert r"label\x1b[2J" in shown and r"a\x09b\x07\u009b31mc" in shown
    assert "\x1b" not in shown and "\x9b" not in shown and r"\x0a" not in shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (4 * 3600 + 5 * 60 + 59, "4 h 05 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert console.duration(seconds) == said


def parsed(text: str, units: dict[str, float]) -> float:
    words = text.replace(",", "").split()
    return sum(
        float(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True)
    )


@given(st.floats(0, 10**6))
def test_durations_are_true_to_their_last_place(seconds: float) -> None:
    told = parsed(console.duration(seconds), {"s": 1, "min": 60, "h": 3600})
    assert abs(told - seconds) <= 0.5 if seconds < 3599 else -0.5 <= seconds - told <= 60


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (12_345_678, "12.3 MB")]
)
def test_sizes(n: int, said: str) -> None:
    assert console.size(n) == said


@given(st.integers(1000, 10**15))
def test_sizes_are_true_to_their_last_place(n: int) -> None:
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
    said = console.size(n)
    assert abs(parsed(said, units) - n) <= 0.0501 * units[said.split()[1]]


@pytest.mark.parametrize("say", [console.error, console.warn])
def test_a_long_message_is_one_line(screen: Screen, say: Callable[[str], None]) -> None:
    say("word " * 100 + "end")
    assert len(screen.err) == 1


controls = st.characters(categories=["Cc"], exclude_characters="\n") | st.sampled_from(
    "\u2028\u202e\u2066\ud800\udcff"
)
texts = st.lists(controls | printable | markup | st.just("\n")).map("".join)


@given(texts)
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        screen = Screen(patch)
        console.out.print(text)
        console.error(text)
        console.warn(text)
        console.out.print(console.styled("a", (text, "bold")))
        console.table(text, (text,), [(text,)])
        with console.bar(text, 1) as bar:
            bar.to(1, text)
        written = set(screen._out.getvalue() + screen._err.getvalue()) - {"\n"}
        assert not {letter for letter in written if unicodedata.category(letter) in ("Cc", "Cs")}
        assert not set("\u2028\u202e\u2066") & written


@given(st.lists(st.lists(texts, max_size=3), max_size=3))
def test_results_are_a_line_for_each_row(rows: list[list[str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written = StringIO()
        patch.setattr(sys, "stdout", written)
        console.lines(rows)
    assert [line.count("\t") for line in written.getvalue().splitlines()] == [
        max(0, len(columns) - 1) for columns in rows
    ]


@given(st.recursive(st.text(st.characters()), st.lists))
def test_json_stays_json_with_the_same_value(value: object) -> None:
    line = json.dumps(value, ensure_ascii=False)
    assert json.loads(console.visible(line)) == value
    codecs.register_error("tested", console._as_json)
    for encoding in ("ascii", "utf-8", "cp1252"):
        assert json.loads(line.encode(encoding, "tested").decode(encoding)) == value


PRINTS = r"""
import sys
from sqzb import console
console.prepare_streams()
for number in range(3):
    console.out.print("text " * 5000)
console.out.print("[/x] é \U0001f600 \udcff")
console.end_streams()
print("the end", file=sys.stderr)
"""
LOST = "warning: Standard output is lost ({}). The work continues without it."


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("| true", 0, [LOST.format("its reader has ended"), "the end"]),
        (">/dev/full", 0, [LOST.format("[Errno 28] No space left on device"), "the end"]),
        (">&-", 0, ["the end"]),
        (">/dev/null 2>&-", 0, []),
    ],
)
def test_a_stream_that_is_lost_does_not_end_the_work(
    redirection: str, code: int, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    command = f"set -o pipefail; {sys.executable} {tmp_path}/prints.py {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (code, said)


def test_results_end_quietly_where_the_reader_has_enough(tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(
        "from sqzb import console\nconsole.lines([['text' * 50000]] * 9)\n", encoding="utf-8"
    )
    for redirection, code, said in (
        ("| true", 141, ""),
        (">/dev/full", 1, "OSError: [Errno 28] No space left on device: 'Standard output'"),
    ):
        command = f"set -o pipefail; {sys.executable} {tmp_path}/prints.py {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == code and "".join(done.stderr.splitlines()[-1:]) == said


def test_an_encoding_that_lacks_a_character_loses_no_text(tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "prints.py"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "1", "LANG": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == r"[/x] \u00e9 \ud83d\ude00 \udcff"
