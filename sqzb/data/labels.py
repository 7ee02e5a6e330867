"""Labels of records: their kind, recognised or given, and their values as a data set has them."""

import difflib
import re
from decimal import Decimal
from typing import Any

from sqzb.console import counted
from sqzb.data.dataset import Classes, Kind, Label, Labels, Number, Tags
from sqzb.data.formats.common import listed
from sqzb.data.records import NUMBER, Record, family, is_missing, is_no_label, shown
from sqzb.errors import UserError

KINDS: dict[str, type[Kind]] = {
    "classes": Classes,
    "number": Number,
    "labels": Labels,
    "tokens": Tags,
}

WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.0+)?", re.ASCII)
WITH_COMMA = re.compile(r"[+-]?\d[\d.]*,\d+", re.ASCII)
LARGEST = 1e30  # of numbers that models learn with 32 bits
COMMA_ADVICE = "Write numbers with a point and without thousands separators, such as 3.5."


def kind_name(kind: Kind) -> str:
    """Return the name of a kind in recipes."""
    return next(name for name, type_ in KINDS.items() if isinstance(kind, type_))


def _natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names without regard to case, and the numbers in them by value."""
    parts = re.split("([0-9]+)", name.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def sorted_names(names: set[str]) -> tuple[str, ...]:
    """Return names in an order that does not depend on the rows: whole numbers by value."""
    if all(WHOLE.fullmatch(name) for name in names):
        return tuple(sorted({whole_name(name) for name in names}, key=int))
    return tuple(sorted(names, key=_natural))


def class_name(value: Any, record: Record) -> str:
    """Return the name of a class.

    Raises:
        UserError: The label is missing, or its type cannot name a class.
    """
    if is_no_label(value):
        raise _missing(record)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (bool, int, float, Decimal)):
        return str(value)
    raise UserError(
        f"{record.where}: the label is {family(value)} ({shown(value)}) and not the name of a "
        "class. Name the column of labels with --label."
    )


def whole_name(name: str) -> str:
    """Return 3 for 3.0, and another name as it is."""
    return name.partition(".")[0].removeprefix("+") if WHOLE.fullmatch(name) else name


def number(value: Any, record: Record) -> float:
    """Return a number of a regression.

    Raises:
        UserError: The label is missing, or is no finite number.
    """
    if is_no_label(value):
        raise _missing(record)
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and NUMBER.fullmatch(value.strip())):
        result = float(value)
    elif isinstance(value, str) and WITH_COMMA.fullmatch(value.strip()):
        raise UserError(f"{record.where}: the label {value!r} has a comma. {COMMA_ADVICE}")
    else:
        raise UserError(
            f"{record.where}: the label is {family(value)} ({shown(value)}) and not a number. Mend "
            "the row, name the column of labels with --label, or give data.kind=classes."
        )
    if not abs(result) <= LARGEST:
        raise UserError(
            f"{record.where}: the label {shown(value)} is not from -{LARGEST:g} to {LARGEST:g}. "
            "Mend the row."
        )
    return result


def names_of_list(value: Any, record: Record, separator: str) -> list[str]:
    """Return the names in a list of labels, or in a text with separators between them.

    Raises:
        UserError: The labels are missing, or are neither; or one of them names no class.
    """
    if isinstance(value, str):
        if value.strip().startswith("[") and value.strip().endswith("]"):
            raise UserError(
                f"{record.where}: the labels {shown(value)} are a list that was written as text. "
                f"Write the names with {separator!r} between them, or give the rows as JSONL."
            )
        parts = [part for part in value.split(separator) if part.strip()]
        return [class_name(part, record) for part in parts]
    if is_missing(value):
        raise _missing(record, "Write an empty list where no label holds.")
    if not isinstance(value, list):
        raise UserError(
            f"{record.where}: the labels are {family(value)} ({shown(value)}) and neither a list "
            f"nor a text with {separator!r} between labels. Name their column with --label."
        )
    return [class_name(item, record) for item in value]


def tags_of_words(value: Any, record: Record) -> list[str]:
    """Return the tag of each word.

    Raises:
        UserError: There are no words, or not a tag for each; or a tag is missing.
    """
    if record.words is None:
        raise UserError(
            f"{record.where}: the text is no list of words, and tags need one. Name the column of "
            "words with --text, or give data.kind=classes for one label a text."
        )
    tags = value.split() if isinstance(value, str) else value
    if is_missing(tags):
        raise _missing(record)
    if not isinstance(tags, list):
        raise UserError(
            f"{record.where}: the tags are {family(value)} ({shown(value)}) and not a list with a "
            "tag for each word. Name their column with --label."
        )
    if len(tags) != len(record.words):
        raise UserError(
            f"{record.where}: there are {counted(len(record.words), 'word')} and "
            f"{counted(len(tags), 'tag')}. Give each word one tag."
        )
    return [class_name(tag, record) for tag in tags]


def _missing(
    record: Record, advice: str = "Give each row a label, or remove the row."
) -> UserError:
    return UserError(f"{record.where}: the label is missing (empty, null or NaN). {advice}")


def _check_no_words(record: Record) -> None:
    if record.words is not None:
        raise UserError(
            f"{record.where}: the text is a list of words. Name a column of texts with --text, or "
            "give data.kind=tokens if each word has a tag."
        )


class LabelReader:
    """A reader of records' labels as a data set has them: indices into names, or numbers."""

    def __init__(self, kind: Kind, separator: str) -> None:
        self._kind, self._separator = kind, separator
        self._indices = {name: index for index, name in enumerate(kind.names)}

    def label(self, record: Record) -> Label:
        """Return a record's label.

        Raises:
            UserError: The label is missing, is of another kind, or has a name that is not known.
        """
        value = record.label
        if isinstance(self._kind, Number):
            return number(value, record)
        if isinstance(self._kind, Classes):
            if isinstance(value, str) and value in self._indices and record.words is None:
                return self._indices[value]  # nearly every label is written as its name
            _check_no_words(record)
            return self._index(class_name(value, record), record)
        if isinstance(self._kind, Labels):
            _check_no_words(record)
            names = names_of_list(value, record, self._separator)
            return tuple(sorted({self._index(name, record) for name in names}))
        return tuple(self._index(name, record) for name in tags_of_words(value, record))

    def _index(self, name: str, record: Record) -> int:
        index = self._indices.get(name)
        if index is None:
            index = self._indices.get(whole_name(name))
        if index is None:
            near = difflib.get_close_matches(name, self._kind.names, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"{record.where}: the label {shown(name)} is in no training example.{meant} The "
                f"labels are {listed(self._kind.names)}. Mend the row, or add training examples "
                "with this label."
            )
        return index
