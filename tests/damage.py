"""Damage to files: what a disk, an editor, a transfer or a mistaken command leaves."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

STRANGE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**40, 2**70, 1e400, float("nan"), 0.5, "", "[/x]", "\x1b[31m", "\ud800",
    [], [[]], {}, {"a": [1]}, [None], "../..", "é" * 200,
)  # fmt: skip


def _bytes(
    change: Callable[[bytes, random.Random], bytes],
) -> Callable[[Path, random.Random], None]:
    """Return damage that rewrites a file's bytes."""

    def damage(path: Path, draw: random.Random) -> None:
        path.write_bytes(change(path.read_bytes(), draw))

    damage.__name__ = change.__name__.strip("_")
    return damage


def _flip_bit(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _empty(content: bytes, draw: random.Random) -> bytes:
    return b""


def _zeros(content: bytes, draw: random.Random) -> bytes:
    """Zero a block, as a file system does that lost one."""
    start = draw.randrange(len(content) + 1)
    size = draw.choice([1, 16, 512, 4096])
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def _noise(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + draw.randbytes(draw.choice([1, 7, 300])) + content[start:]


def _twice(content: bytes, draw: random.Random) -> bytes:
    return content + content


def _other_encoding(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("latin1")
    return text.encode(draw.choice(["utf-16", "utf-8-sig", "utf-32", "utf-7"]))


def _line_ends(content: bytes, draw: random.Random) -> bytes:
    return content.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n", b"\x00\n", b""]))


def _without_a_line(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def _lines_swapped(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    draw.shuffle(lines)
    return b"".join(lines)


def _word_replaced(content: bytes, draw: random.Random) -> bytes:
    words = content.split(b" ")
    words[draw.randrange(len(words))] = json.dumps(draw.choice(STRANGE_VALUES)).encode()
    return b" ".join(words)


def _brackets(content: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"[", b"{", b'{"a":', b"- ", b"("]) * 50_000


def another_value(path: Path, draw: random.Random) -> None:
    """Give a value of a JSON file another type or size; another file gets a strange line."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        with path.open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.write(f"\n{json.dumps(draw.choice(STRANGE_VALUES))}\n")
        return

    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        values = waiting.pop()
        keys = list(values) if isinstance(values, dict) else range(len(values))
        for key in keys:
            places.append((values, key))
            if isinstance(values[key], dict | list):
                waiting.append(values[key])
    if places and draw.random() < 0.9:
        values, key = draw.choice(places)
        if isinstance(values, dict) and draw.random() < 0.3:
            del values[key]
        else:
            values[key] = draw.choice(STRANGE_VALUES)
    else:
        content = draw.choice(STRANGE_VALUES)
    path.write_text(json.dumps(content), encoding="utf-8")


def gone(path: Path, draw: random.Random) -> None:
    """Remove the file."""
    path.unlink()


def folder_instead(path: Path, draw: random.Random) -> None:
    """Put a folder in the file's place."""
    path.unlink()
    path.mkdir()


def link_instead(path: Path, draw: random.Random) -> None:
    """Put a link in the file's place: to nothing, to itself, or to its folder."""
    path.unlink()
    path.symlink_to(draw.choice(["nowhere", path.name, "."]))


def content_of_another(path: Path, draw: random.Random) -> None:
    """Give the file the content of one beside it."""
    others = sorted(other for other in path.parent.iterdir() if other.is_file())
    path.write_bytes(draw.choice(others).read_bytes())


def copies_beside(path: Path, draw: random.Random) -> None:
    """Leave copies beside the file, as editors and people do."""
    for ending in (".bak", "~", ".partial", ".tmp"):
        path.with_name(path.name + ending).write_bytes(path.read_bytes()[: draw.randrange(2, 99)])


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *map(
        _bytes,
        (
            _flip_bit, _flip_bit, _truncate, _empty, _zeros, _noise, _twice, _other_encoding,
            _line_ends, _without_a_line, _lines_swapped, _word_replaced, _brackets,
        ),
    ),
    another_value, another_value, another_value,
    gone, folder_instead, link_instead, content_of_another, copies_beside,
)  # fmt: skip
