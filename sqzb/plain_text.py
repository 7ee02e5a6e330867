"""Text as a terminal shows it: nothing is obeyed, and lines end between words."""

import re
import textwrap

# Control characters but the line end, and characters that reorder or break a line of a terminal, or
# that no encoding has.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_QUOTED = re.compile("`[^`\n]*`")
_BLANK = "\x00"  # stands for a blank where no line may end


def visible(text: str) -> str:
    r"""Return text with escapes such as \x1b for control characters, which a terminal obeys.

    Text that is JSON stays JSON with the same value.
    """
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x7F else f"\\u{number:04x}"


def wrapped(text: str, width: int) -> str:
    """Return text whose lines end between words, at most `width` characters long where possible.

    No word is divided, so that paths and numbers stay whole, and no command in backticks, so that
    it can be copied. Further lines of a line are indented as its first one.
    """
    lines = []
    for line in _QUOTED.sub(lambda match: match[0].replace(" ", _BLANK), text).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        parts = textwrap.wrap(
            line,
            max(1, width),
            subsequent_indent=indent,
            expand_tabs=False,
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += parts if len(line.rstrip()) > width else [line]
    return "\n".join(lines).replace(_BLANK, " ")
