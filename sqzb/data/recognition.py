"""The kind of labels that training records have, and what a data set knows of it."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sqzb.data.dataset import Classes, Kind, Labels, Number, Tags
from sqzb.data.labels import (
    COMMA_ADVICE,
    WHOLE,
    WITH_COMMA,
    class_name,
    names_of_list,
    number,
    sorted_names,
    tags_of_words,
)
from sqzb.data.records import NUMBER, Record, family, is_missing, shown
from sqzb.errors import UserError

CODE = re.compile("[+-]?0[0-9]")  # the start of a code such as 007, which is no quantity
# Whole numbers with more different values than this are not taken for names of classes.
MOST_NUMBERED_CLASSES = 20
# More classes than this must be asked for.
MOST_CLASSES = 1000


def learn_kind(records: Sequence[Record], given: str | None, separator: str) -> Kind:
    """Return the kind of the labels of training records, with names or with mean and spread.

    given: a name of KINDS; None: the kind is recognised.

    Raises:
        UserError: The labels are of mixed types, fit no kind or several, or are all the same; a
            label is missing; or the labels look like ids.
    """
    _check_types(records)
    name = given or _recognised(records)
    if name == "number":
        return _numbers(records)
    if name == "labels":
        return Labels(_names(records, lambda r: names_of_list(r.label, r, separator)))
    if name == "tokens":
        tags = _names(records, lambda record: tags_of_words(record.label, record))
        _check_several(tags, records)
        return Tags(tags)

    names = _class_names(records)
    _check_no_ids(names, records, is_given=given is not None)
    classes = sorted_names(set(names))
    _check_several(classes, records)
    return Classes(classes)


def _names(records: Sequence[Record], names_of: Callable[[Record], list[str]]) -> tuple[str, ...]:
    """Return the sorted names in all labels."""
    names: set[str] = set()
    for record in records:
        names.update(names_of(record))
    if not names:
        raise UserError(
            f"{records[0].source}: no example has a label. Name their column with --label."
        )
    return sorted_names(names)


def _class_names(records: Sequence[Record]) -> list[str]:
    """Return the name of each record's class."""
    names_of_texts: dict[str, str] = {}  # the same few texts come again and again
    names = []
    for record in records:
        label = record.label
        name = names_of_texts.get(label) if isinstance(label, str) else None
        if name is None:
            name = class_name(label, record)
            if isinstance(label, str):
                names_of_texts[label] = name
        names.append(name)
    return names


def _numbers(records: Sequence[Record]) -> Number:
    """Return the range, mean and standard deviation; the order of the records does not matter."""
    values = [number(record.label, record) for record in records]
    low, high = min(values), max(values)
    if np.float32(low) == np.float32(high):  # as models have them
        raise UserError(
            f"{records[0].source}: every label is {low:g}, so there is nothing to learn. Name "
            "the column of labels with --label."
        )
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return Number(low, high, mean, math.sqrt(variance))


def _recognised(records: Sequence[Record]) -> str:
    """Return the name of the one kind that the labels fit."""
    if records[0].words is not None:
        return "tokens"
    if isinstance(records[0].label, list):
        return "labels"

    names = _class_names(records)
    counts = Counter(names)
    others = [name for name in counts if CODE.match(name) or not NUMBER.fullmatch(name)]
    if others:
        _check_no_broken_numbers(records, names, others)
        return "classes"
    if not all(map(WHOLE.fullmatch, counts)):
        return "number"
    if len(counts) <= MOST_NUMBERED_CLASSES:
        return "classes"

    # Whole numbers with many values: ids, counts and class numbers look alike.
    where = f"{records[0].source}: the labels are whole numbers with {len(counts):,} values"
    if len(counts) == len(records):
        raise UserError(
            f"{where}, each in one row, as in a column of ids. Name the column of labels with "
            "--label, or give data.kind=number if the labels are quantities."
        )
    values = sorted(int(float(name)) for name in counts)
    if values[0] in (0, 1) and values[-1] - values[0] + 1 == len(values):
        raise UserError(
            f"{where} without a gap, which may be classes or quantities. Give data.kind=classes "
            "or data.kind=number."
        )
    return "number"


def mixed_labels(records: Sequence[Record]) -> list[str]:
    """Return a warning if some classes have numbers for names and others have words."""
    numbered = named = None
    for record in records:
        name = class_name(record.label, record)
        if CODE.match(name):
            continue
        if NUMBER.fullmatch(name):
            numbered = numbered or record
        else:
            named = named or record
    if numbered is None or named is None:
        return []
    first, second = (f"{record.where} ({shown(record.label)})" for record in (numbered, named))
    return [
        f"Some labels are numbers, as in {first}, and some are words, as in {second}. All are "
        "taken for names of classes. For numbers, correct the rows with words and give --kind "
        "number; if all are names, --kind classes ends this warning."
    ]


def _check_types(records: Sequence[Record]) -> None:
    """Check that all labels are of the first one's type."""
    first = next((record for record in records if not is_missing(record.label)), records[0])
    expected = family(first.label)
    for record in records:
        actual = family(record.label)
        if actual != expected and not is_missing(record.label):
            raise UserError(
                f"{record.where}: the label is {actual} ({shown(record.label)}), and that of "
                f"{first.where} is {expected} ({shown(first.label)}). Give all labels one type."
            )


def _check_no_broken_numbers(
    records: Sequence[Record], names: Sequence[str], others: Sequence[str]
) -> None:
    """Check that labels which are nearly all numbers are all numbers.

    names: of the records' labels; others: those that are no numbers, each once.
    """
    broken = set(others)
    first = next(index for index, name in enumerate(names) if name in broken)
    where = records[first].where
    if all(map(WITH_COMMA.fullmatch, others)):
        raise UserError(
            f"{where}: the label {names[first]!r} has a comma. {COMMA_ADVICE} If the labels are "
            "names of classes, give data.kind=classes."
        )
    n_broken = sum(name in broken for name in names)
    if len(set(names)) > MOST_NUMBERED_CLASSES and n_broken <= len(names) / 10:
        raise UserError(
            f"{where}: the label {shown(names[first])} is no number, as all but {n_broken:,} of "
            f"{len(names):,} labels are. Mend the row, or give data.kind=classes if the labels "
            "are names of classes."
        )


def _check_no_ids(names: Sequence[str], records: Sequence[Record], is_given: bool) -> None:
    """Check that labels are not the ids or texts of rows."""
    n_classes, n = len(set(names)), len(names)
    all_different = n_classes == n > MOST_NUMBERED_CLASSES
    mostly_different = n_classes > max(MOST_NUMBERED_CLASSES, n / 2)
    if not all_different and (is_given or not (mostly_different or n_classes > MOST_CLASSES)):
        return
    instead = "Name the column of labels with --label"
    if not all_different:
        instead += ", or give data.kind=classes if there are so many classes"
    raise UserError(
        f"{records[0].source}: the labels have {n_classes:,} values in {n:,} rows "
        f"({shown(names[0])}, {shown(names[1])}, ...), as in a column of ids or texts. {instead}."
    )


def _check_several(names: Sequence[str], records: Sequence[Record]) -> None:
    if len(names) == 1:
        raise UserError(
            f"{records[0].source}: every label is {names[0]!r}, so there is nothing to learn. "
            "Add examples of another label, or name the column of labels with --label."
        )
