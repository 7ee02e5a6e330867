"""Lines of text on a terminal: they end between words, and nothing that is copied is divided."""

import re
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb import console
from sqzb.plain_text import visible, wrapped

WORD = st.text("abc123./-_=", min_size=1, max_size=30)
COMMAND = st.lists(WORD, min_size=1, max_size=4).map(lambda words: f"`{' '.join(words)}`")
LINE = st.lists(WORD | COMMAND, max_size=20).map(" ".join)
TEXT = st.lists(LINE, max_size=3).map("\n".join)


@given(TEXT, st.integers(1, 120))
def test_lines_end_between_words_alone(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert lines.split() == text.split()
    assert [c for c in re.findall("`[^`]*`", lines) if "\n" in c] == []
    for line in lines.split("\n"):
        unbroken = re.sub("`[^`]*`", "x", line).split()
        assert len(line) <= width or len(unbroken) == 1


@given(TEXT, st.integers(1, 120))
def test_a_line_is_as_full_as_it_can_be(text: str, width: int) -> None:
    assert wrapped(wrapped(text, width), width) == wrapped(text, width)
    longest = max(map(len, text.split("\n")))
    assert wrapped(text, max(1, longest)) == text


@given(st.text())
def test_every_text_stays(text: str) -> None:
    """Blanks at the end of a line are left out, and nothing else."""
    assert "".join(wrapped(visible(text), 10).split()) == "".join(visible(text).split())


@pytest.mark.parametrize("terminal", [False, True])
def test_sentences_wrap_on_a_terminal_and_commands_do_not(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    written = StringIO()
    for name in ("out", "err"):
        screen = console.PlainConsole(written, force_terminal=terminal, width=30, no_color=True)
        monkeypatch.setattr(console, name, screen)
    sentence = "The disk of the folder has 12.3 GB free, and the corpus needs 1,234.5 GB."
    for printed in (console.out.print, console.warn, console.error):
        written.seek(0)
        written.truncate()
        printed(sentence)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue()).splitlines()
        assert (len(lines) > 1) == terminal
        assert all(len(line) <= 30 for line in lines) == terminal
        assert " ".join(lines).endswith(sentence)
    written.seek(0)
    written.truncate()
    console.next_commands([f"sqzb eval {'runs/long/' * 5}"])
    assert f"  sqzb eval {'runs/long/' * 5}\n" in written.getvalue()
