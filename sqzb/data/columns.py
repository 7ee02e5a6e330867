"""The columns of texts and labels: given by name, or recognised where one choice is sensible."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqzb.data.formats.common import Table, header_hint, listed, missing_column
from sqzb.errors import UserError

# Names of columns in small letters with _ between words. A name of the first group beats those of
# the second.
# fmt: off
TEXTS = (
    ["text", "sentence", "review", "content", "comment", "body", "message", "tweet", "utterance",
     "document", "passage", "post", "review_text", "review_body"],
    ["title", "headline", "description", "summary", "abstract", "subject", "question", "query",
     "prompt", "string"],
)
LABELS = (
    ["label", "labels", "target", "class", "gold_label", "y"],
    ["category", "categories", "sentiment", "score", "rating", "stars", "tag", "tags", "topic",
     "topics", "intent", "emotion", "emotions", "polarity", "similarity", "similarity_score",
     "quality", "grade", "toxicity", "genre"],
)
WORDS = ["words", "tokens"]
NUMBERS_OF_ROWS = ["", "id", "idx", "index", "unnamed_0"]
TAGS = ["tags", "labels", "ner_tags", "pos_tags", "chunk_tags", "ner", "pos", "tag", "label"]
# fmt: on
PAIRS = [
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
]
PAIR_ENDINGS = (("1", "2"), ("_1", "_2"), ("_a", "_b"))
TEXT_OPTION = "--text"
LABEL_OPTION = "--label"
KIND_OPTION = "--kind"


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read.

    text        one column, or two for pairs
    label       None where there are no labels
    recognised  those of "text" and "label" that were not given by name
    """

    text: tuple[str, ...]
    label: str | None
    recognised: tuple[str, ...] = ()


def choose(
    table: Table,
    text: Sequence[str] = (),
    label: str | None = None,
    tokens: bool = False,
    labelled: bool = True,
) -> Columns:
    """Return the columns of a table to read.

    text, label: names that were given; the rest is recognised
    tokens: whether labels are known to be tags of words
    labelled: whether a column of labels is needed

    Raises:
        UserError: A given column is not there, or several columns or none could be meant.
    """
    _check_given(table, text, label)
    recognised = []
    texts = tuple(text)
    if label is None and labelled:
        label = _recognised_label(table, texts, tokens)
        recognised.append("label")
    if not texts:
        texts = _recognised_texts(table, label, tokens)
        recognised.insert(0, "text")

    # A column that is left over next to the texts must be the label.
    if label is None and labelled:
        others = _left_over(_by_plain_name([name for name in table.columns if name not in texts]))
        if len(others) != 1:
            raise _not_recognised(table, "labels", f"Name it with {LABEL_OPTION}.")
        label = others[0]
    return Columns(texts, label, tuple(recognised))


def check_same(table: Table, columns: Columns, first: str) -> None:
    """Check that a table has the columns that were chosen in the first file.

    Raises:
        UserError: A column is not there.
    """
    for name in (*columns.text, *([] if columns.label is None else [columns.label])):
        if name not in table.columns:
            option = LABEL_OPTION if name == columns.label else TEXT_OPTION
            error = missing_column(table.path, name, table.columns, option)
            raise UserError(f"{error} {first} has this column: all files must have it.")


def _check_given(table: Table, text: Sequence[str], label: str | None) -> None:
    if len(text) > 2:
        raise UserError(
            f"{TEXT_OPTION} names {len(text)} columns. Name one, or two for pairs of texts."
        )
    if len(set(text)) < len(text) or label in text:
        raise UserError(
            f"{TEXT_OPTION} and {LABEL_OPTION} name one column twice. Name a column for each."
        )
    for name in text:
        if name not in table.columns:
            raise missing_column(table.path, name, table.columns, TEXT_OPTION)
    if label is not None and label not in table.columns:
        raise missing_column(table.path, label, table.columns, LABEL_OPTION)


def _recognised_label(table: Table, texts: Sequence[str], tokens: bool) -> str | None:
    """Return the column of labels by its name; None if no column has such a name."""
    there = _by_plain_name([name for name in table.columns if name not in texts])
    has_words = any(name in there for name in WORDS) and not texts
    has_tags = any(name in there for name in TAGS)
    are_tags = tokens or (has_words and has_tags and not _texts(there))
    for group in [TAGS] if are_tags else LABELS:
        names = [there[name] for name in group if name in there]
        if len(names) > 1:
            raise _several(table, "labels", names, f"Choose with {LABEL_OPTION}.")
        if names:
            return names[0]
    return None


def _recognised_texts(table: Table, label: str | None, tokens: bool) -> tuple[str, ...]:
    """Return the columns of texts by their names, or the one column that is not the label."""
    there = _by_plain_name([name for name in table.columns if name != label])
    words = [(there[name],) for name in WORDS if name in there]
    candidates = words if tokens else _texts(there) or words
    advice = f"Choose with {TEXT_OPTION}; a pair of texts is A,B."
    if len(candidates) > 1:
        raise _several(table, "texts", [",".join(names) for names in candidates], advice)
    if candidates:
        return candidates[0]
    others = _left_over(there)
    if label is not None and len(others) == 1:
        return (others[0],)
    raise _not_recognised(table, "texts", f"Name it with {TEXT_OPTION}; a pair of texts is A,B.")


def _left_over(there: dict[str, str]) -> list[str]:
    """Return the columns that do not just number the rows."""
    return [column for name, column in there.items() if name not in NUMBERS_OF_ROWS]


def _texts(there: dict[str, str]) -> list[tuple[str, ...]]:
    """Return the columns or pairs of columns with names of texts.

    there: columns by plain name.
    """
    pairs: list[tuple[str, ...]] = []
    in_pairs: set[str] = set()
    for first, second in _pair_names():
        if first in there and second in there:
            pairs.append((there[first], there[second]))
            in_pairs |= {first, second}

    certain, others = TEXTS
    candidates = pairs + [
        (there[name],) for name in certain if name in there and name not in in_pairs
    ]
    return candidates or [(there[name],) for name in others if name in there]


def _pair_names() -> list[tuple[str, str]]:
    """Return PAIRS, and names such as sentence1 and sentence2."""
    names = list(PAIRS)
    for group in TEXTS:
        for name in group:
            names += [(name + first, name + second) for first, second in PAIR_ENDINGS]
    return names


def _by_plain_name(columns: Sequence[str]) -> dict[str, str]:
    """Return columns by their name in small letters with _ between words."""
    return {re.sub("[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in columns}


def _several(table: Table, content: str, names: Sequence[str], advice: str) -> UserError:
    choices = " or ".join(repr(name) for name in names)
    return UserError(f"{table.path}: the {content} may be in {choices}. {advice}")


def _not_recognised(table: Table, content: str, advice: str) -> UserError:
    return UserError(
        f"{table.path}: no column is recognised as that of the {content}; the columns are "
        f"{listed(table.columns)}. {advice}{header_hint(table.columns)}"
    )
