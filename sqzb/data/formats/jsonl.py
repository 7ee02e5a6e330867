"""JSON: an object a line, or an array of objects."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from sqzb.data.formats.common import LONGEST, Row, Table
from sqzb.data.formats.text import lines, open_text, read
from sqzb.errors import UserError

SPACE = " \t\r\n"
GAP = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")  # between two objects of an array

# Half of a surrogate pair, which a careless cut of an emoji leaves. It is no character.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")

Object = tuple[int, dict[str, Any]]  # the line where the object begins, and the object
Objects = Callable[[IO[str], str], Iterator[Object]]


class _RepeatedKey(ValueError):
    """An object has a key twice."""


def open_table(path: str) -> Table:
    """Open a file with an object a line. The columns are the keys of the first object.

    Raises:
        UserError: The file is empty, or its first line is no object.
    """
    return _table(path, _objects_of_lines)


def open_array(path: str) -> Table:
    """Open a file with an array of objects, or with an object a line.

    Raises:
        UserError: The file is empty, or has no object in its first place.
    """
    with open_text(path) as opened:
        start = read(opened, path, 1).lstrip(SPACE)[:1]
    return _table(path, _objects_of_array if start == "[" else _objects_of_lines)


def _table(path: str, objects: Objects) -> Table:
    with open_text(path) as opened:
        first = next(objects(opened, path), None)
    if first is None:
        raise UserError(f"{path} is empty. Give a file with a JSON object a row.")
    return Table(path, tuple(first[1]), "line", lambda wanted: _rows(path, objects))


def _rows(path: str, objects: Objects) -> Iterator[Row]:
    with open_text(path) as opened:
        for number, row in objects(opened, path):
            yield Row(number, row)


def _objects_of_lines(opened: IO[str], path: str) -> Iterator[Object]:
    return objects_of_lines(lines(opened, path), path)


def objects_of_lines(given: Iterable[str], path: str) -> Iterator[Object]:
    """Yield the object of each line that is not blank, with the line's number.

    Raises:
        UserError: A line is no JSON object.
    """
    for number, line in enumerate(given, 1):
        if line.strip(SPACE):
            try:
                value = DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                raise _not_json(path, number, error) from error
            yield number, _checked(value, line, path, number)


def _objects_of_array(opened: IO[str], path: str) -> Iterator[Object]:
    """Yield each object of the file's array, with the line where the object begins.

    The file is read piece by piece: an object that is not whole yet waits for the next piece.
    """
    text = read(opened, path, 1)
    position, number = text.index("["), 1
    number += text[:position].count("\n")
    position += 1
    while True:
        gap = GAP.match(text, position)
        begin = gap.end() if gap else position
        number += text.count("\n", position, begin)
        position = begin
        if text.startswith("]", begin):
            _check_end(opened, text[begin + 1 :], path, number)
            return

        try:
            value, end = DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            text, position = text[begin:], 0
            more = read(opened, path, number + text.count("\n")) if len(text) < LONGEST else ""
            if not more:
                raise _not_json(path, number, error) from error
            text += more
        else:
            yield number, _checked(value, text[begin:end], path, number)
            number += text.count("\n", begin, end)
            position = end


def _check_end(opened: IO[str], rest: str, path: str, number: int) -> None:
    """Check that nothing follows the array."""
    while not rest.strip(SPACE) and (more := read(opened, path, number)):
        rest = more
    if rest.strip(SPACE):
        raise UserError(
            f"{path}:{number}: there is more behind the array's end. Give one array of objects."
        )


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKey(f"the key {repeated!r} is there twice")
    return row


DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated)


def _checked(value: Any, text: str, path: str, number: int) -> dict[str, Any]:
    """Return a row's object, with U+FFFD for each half of a character."""
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)[:60]
        raise UserError(
            f'{path}:{number}: {shown} is no JSON object. Give rows such as {{"text": "...", '
            '"label": "..."}.'
        )
    whole: dict[str, Any] = _whole_characters(value) if ESCAPED_HALF.search(text) else value
    return whole


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return HALF_CHARACTER.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value


def _not_json(path: str, number: int, error: Exception) -> UserError:
    # The error's own line and column count from the start of a piece of the file.
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    reason = reason if isinstance(error, _RepeatedKey) else f"no valid JSON ({reason})"
    return UserError(f"{path}:{number}: {reason}. Give a JSON object a line, or an array of them.")
