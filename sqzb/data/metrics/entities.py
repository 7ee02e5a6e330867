"""Metrics of tags: of single words, and of the entities that tags mark.

An entity is a hit only if its words and its type are exactly right. Entities follow the strict rule
of seqeval (mode "strict", schemes IOB2, IOBES and BILOU): tags that break the scheme mark nothing.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from numpy.typing import ArrayLike

from sqzb.data.metrics.classes import ClassFigures, accuracy
from sqzb.data.metrics.common import ratio

Scheme = Literal["IOB2", "IOBES", "BILOU"]
OUTSIDE = "O"

# A single letter is a tag where there is one type of entity.
_TAG = re.compile(r"[BIESLU]-.+|[BIO]")
# The tags of both other schemes, by those of IOBES, of which they are a part or another spelling.
_IOBES = {"L": "E", "U": "S"}


class Entity(NamedTuple):
    """The words from `start` up to, but without, `end`."""

    type: str
    start: int
    end: int


def scheme_of(names: Sequence[str]) -> Scheme | None:
    """Return the scheme that tags with these names follow; None if they mark no entities."""
    if not all(_TAG.fullmatch(name) for name in names):
        return None
    prefixes = {name[0] for name in names}
    if prefixes & {"E", "S"}:
        return None if prefixes & {"L", "U"} else "IOBES"
    if prefixes & {"L", "U"}:
        return "BILOU"
    return "IOB2" if "B" in prefixes else None


def entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """Return the entities of a text, given the tag of each word."""
    spans = []
    start = 0
    while start < len(tags):
        prefix, kind = _parts(tags[start])
        end = start + 1
        last = prefix

        # An entity goes on up to its last word, or as long as the next tag is of the same type.
        if prefix == "B":
            goes_on = ("I",) if scheme == "IOB2" else ("I", "E")
            while end < len(tags) and last != "E":
                following, its_kind = _parts(tags[end])
                if following not in goes_on or its_kind != kind:
                    break
                last = following
                end += 1
        is_whole = prefix == "B" if scheme == "IOB2" else prefix == "S" or last == "E" != prefix
        if is_whole:
            spans.append(Entity(kind, start, end))
        start = end
    return spans


def per_type(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], scheme: Scheme
) -> dict[str, ClassFigures]:
    """Return the figures of each type of entity, in alphabetical order.

    predictions, labels: the tags of each text.
    """
    counts: dict[str, list[int]] = {}
    for predicted_tags, true_tags in zip(predictions, labels, strict=True):
        predicted = set(entities(predicted_tags, scheme))
        true = set(entities(true_tags, scheme))
        for number, group in enumerate((predicted & true, predicted, true)):
            for entity in group:
                counts.setdefault(entity.type, [0, 0, 0])[number] += 1
    return {name: _figures(*counts[name]) for name in sorted(counts)}


def all_types(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], scheme: Scheme
) -> ClassFigures:
    """Return the figures of all entities together, whose `f1` is the usual F1 of entities."""
    hits = predicted = true = 0
    for predicted_tags, true_tags in zip(predictions, labels, strict=True):
        ours = set(entities(predicted_tags, scheme))
        theirs = set(entities(true_tags, scheme))
        hits += len(ours & theirs)
        predicted += len(ours)
        true += len(theirs)
    return _figures(hits, predicted, true)


def entity_f1(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], scheme: Scheme
) -> float:
    """Return the F1 of all entities together, 0 to 1."""
    return all_types(predictions, labels, scheme).f1


def token_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the fraction of words with the right tag, 0 to 1; both (words), tag indices."""
    return accuracy(predictions, labels)


def _parts(tag: str) -> tuple[str, str]:
    """Return prefix and type of a tag; a tag that is only a prefix has the type "_"."""
    prefix = _IOBES.get(tag[0], tag[0])
    return prefix, tag[1:].strip("-") or "_"


def _figures(hits: int, predicted: int, true: int) -> ClassFigures:
    f1 = ratio(2 * hits, predicted + true)
    return ClassFigures(ratio(hits, predicted), ratio(hits, true), f1, true)
