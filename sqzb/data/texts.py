"""Texts of a table without labels, such as those that a model is to predict."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb.data.columns import TEXT_OPTION, choose
from sqzb.data.dataset import Text, is_empty
from sqzb.data.formats.common import Row, Table
from sqzb.data.records import family, is_missing, shown
from sqzb.errors import UserError

COUNTS = ("no text", "one text", "two texts")
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class TextTable:
    """A table and its columns of texts.

    columns      one, or two for pairs
    takes_words  whether a text may be a list of words
    """

    table: Table
    columns: tuple[str, ...]
    takes_words: bool = False

    def text(self, row: Row) -> Text | None:
        """Return the row's text, pair or list of words; None where `is_empty` holds.

        Raises:
            UserError: A value is no text, or the row lacks a column of texts.
        """
        values = [self._value(row, name) for name in self.columns]
        text: Text = values[0] if len(values) == 1 else (values[0], values[1])
        return None if is_empty(text) else text

    def _value(self, row: Row, name: str) -> Any:
        where = self.table.where(row)
        if name not in row.values:
            raise UserError(f"{where}: the row has no {name!r}. Add it, as in the first row.")
        value = row.values[name]
        if is_missing(value):
            return ""
        if isinstance(value, str):
            return value
        if self.takes_words and _is_words(value):
            return value
        raise UserError(
            f"{where}: {name!r} holds {family(value)} ({shown(value)}) and not a text. Name the "
            f"column of texts with {TEXT_OPTION}, or write all its values as texts."
        )


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


@dataclass(frozen=True)
class Checked:
    """A table after one reading of all its rows.

    rows     their number
    columns  of all rows, in order: a JSON object may have keys that the first one lacks
    schema   the columns' types
    """

    rows: int
    columns: tuple[str, ...]
    schema: pa.Schema | None


def choose_texts(
    table: Table,
    text: Sequence[str],
    remembered: Sequence[str],
    needed: int | None,
    takes_words: bool = False,
) -> TextTable:
    """Return a table with its columns of texts.

    text         names that were given; else `remembered`, if the table has these; else the columns
                 are recognised by their names
    remembered   names in the model's training data
    needed       texts of an example; None if any number will do
    takes_words  whether a text may be a list of words

    Raises:
        UserError: A given column is not there, no column or several may hold the texts, or the
            model needs another number.
    """
    chosen = text
    if not text and remembered and set(remembered) <= set(table.columns):
        chosen = remembered
    if not chosen and len(table.columns) == 1:
        chosen = table.columns
    columns = choose(table, chosen, labelled=False).text
    if needed is not None and len(columns) != needed:
        advice = "A,B" if needed == 2 else "COLUMN"
        named = ",".join(columns)
        source = f"{TEXT_OPTION} is {named}" if text else f"the column recognised is {named}"
        raise UserError(
            f"{table.path}: the model needs {COUNTS[needed]} per example, and {source}. Give "
            f"{TEXT_OPTION} {advice}; the columns are {', '.join(table.columns)}."
        )
    return TextTable(table, columns, takes_words)


def check(texts: TextTable, types: bool) -> Checked:
    """Read all rows once, before anything is predicted.

    types: whether the columns' types are needed

    Raises:
        UserError: The file is damaged, a value is no text, or `types` is asked for and a column
            has values of several types.
    """
    table = texts.table
    columns = dict.fromkeys(table.columns)
    schema = pq.read_schema(table.path) if types and table.path.endswith(".parquet") else None
    inferred = pa.schema([pa.field(name, pa.null()) for name in table.columns])
    count = 0
    for rows in _chunks(table.rows()):
        count += len(rows)
        for row in rows:
            texts.text(row)
            columns.update(dict.fromkeys(row.values))
        if types and schema is None:
            inferred = _unified(inferred, rows, tuple(columns), table)
    if schema is None and types:
        schema = pa.schema([inferred.field(name) for name in columns])
    return Checked(count, tuple(columns), schema)


def _unified(schema: pa.Schema, rows: list[Row], columns: Sequence[str], table: Table) -> pa.Schema:
    """Return the types of the rows before and of these rows together."""
    try:
        values: dict[str, list[Any]] = {}
        for name in columns:
            values[name] = [row.values.get(name) for row in rows]
        of_rows = pa.Table.from_pydict(values).schema
        return pa.unify_schemas([schema, of_rows], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(
            f"{table.path}: up to {table.where(rows[-1])}, a column has values of several types "
            f"({error}), which parquet does not take. Give an --output of .jsonl."
        ) from error


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    stream = iter(rows)
    while chunk := list(islice(stream, ROWS_AT_ONCE)):
        yield chunk
