"""Texts and labels of tables' rows, as the files have them."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqzb.data.columns import TEXT_OPTION, Columns
from sqzb.data.formats.common import Table
from sqzb.errors import UserError

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
NO_LABEL = ("", "nan")  # texts in small letters that stand for a missing label


class Record(NamedTuple):
    """A row's texts and its label.

    texts   one, or two of a pair
    words   that tags belong to; None where the text is no list of words
    label   as the file has it; None without a column of labels
    column  of the label, for messages
    table   where the row is from
    number  of the row in its table
    """

    texts: tuple[str, ...]
    words: tuple[str, ...] | None
    label: Any
    column: str | None
    table: Table
    number: int

    @property
    def where(self) -> str:
        """The label's place: FILE:12, column 'label'."""
        return f"{self.table.where(self.number)}, column {self.column!r}"

    @property
    def source(self) -> str:
        """The place of all labels: FILE, column 'label'."""
        return f"{self.table.path}, column {self.column!r}"


def read_records(tables: Sequence[Table], columns: Columns, tokens: bool) -> Iterator[Record]:
    """Yield the records of tables in order.

    tokens: whether a text that is no list is to be divided into words at white space.

    Raises:
        UserError: A text is missing, is no text, or is of another type than in the first row; or a
            row lacks a column; or a table has no rows.
    """
    wanted = [*columns.text, *([] if columns.label is None else [columns.label])]
    for table in tables:
        are_lists: bool | None = None
        for row in table.rows(wanted):
            for name in wanted:
                if name not in row.values:
                    raise UserError(
                        f"{table.where(row)}: the row has no {name!r}. Add it, as in the file's "
                        "first row."
                    )
            texts = tuple(row.values[name] for name in columns.text)
            label = None if columns.label is None else row.values[columns.label]
            if are_lists is None:
                are_lists = len(texts) == 1 and isinstance(texts[0], list)

            words = None
            if are_lists:
                words = _words(texts[0], columns.text[0], table.where(row))
            else:
                for name, text in zip(columns.text, texts, strict=True):
                    if not isinstance(text, str):
                        raise _no_text(text, name, table.where(row))
                if tokens:
                    words = tuple(texts[0].split())
            if words is not None:
                texts = (" ".join(words),)
            yield Record(texts, words, label, columns.label, table, row.number)
        if are_lists is None:
            raise UserError(
                f"{table.path} has columns ({', '.join(table.columns)}) but no rows. Give a file "
                "with examples."
            )


def _no_text(value: Any, name: str, where: str) -> UserError:
    """Return the error for a value that is no text."""
    if is_missing(value):
        return UserError(
            f"{where}: the text in {name!r} is missing (null or NaN). Write an empty text, or "
            "remove the row."
        )
    return UserError(
        f"{where}: {name!r} holds {family(value)} ({shown(value)}) and not a text. Name the column "
        f"of texts with {TEXT_OPTION}, or write all its values as texts."
    )


def _words(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(
            f"{where}: {name!r} holds {family(value)} ({shown(value)}) and not a list of words, as "
            "in the first row. Give all rows the same type."
        )
    for word in value:
        if not isinstance(word, str):
            raise UserError(
                f"{where}: a word in {name!r} is {family(word)} ({shown(word)}) and not a text. "
                "Write all words as texts."
            )
    return tuple(value)


def is_missing(value: Any) -> bool:
    """Return whether a value is null or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_no_label(value: Any) -> bool:
    """Return whether a value is null, not a number or an empty text."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() in NO_LABEL)


def check_no_numbers(records: Sequence[Record], columns: Columns) -> None:
    """Check that no column of texts has only numbers.

    Raises:
        UserError: A column has only numbers.
    """
    for index, name in enumerate(columns.text):
        if all(NUMBER.fullmatch(record.texts[index].strip()) for record in records):
            first = records[0]
            where = first.table.where(first.number)
            raise UserError(
                f"{where}: {name!r} holds numbers in all rows ({shown(first.texts[index])}) and "
                f"not texts. Name the column of texts with {TEXT_OPTION}."
            )


def family(value: Any) -> str:
    """Return the type of a value in words."""
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"a {type(value).__name__}"


def shown(value: Any) -> str:
    """Return a value for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
