"""Entities and their figures are those of seqeval's strict mode; its rule is below as tables of
pairs too.
"""

import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.metrics.entities import (
    Entity,
    Scheme,
    all_types,
    entities,
    entity_f1,
    per_type,
    scheme_of,
)

# By scheme: the prefixes that begin an entity; the pairs of neighbours inside one; and the pairs
# (the last tag of an entity, the next tag, whether the types are equal) after which it counts.
INSIDE = {
    "IOB2": {"BI", "II"},
    "IOBES": {"BI", "BE", "II", "IE"},
    "BILOU": {"BI", "BL", "II", "IL"},
}
START = {"IOB2": "B", "IOBES": "BS", "BILOU": "BU"}
COMPLETE = {"IOB2": "BI", "IOBES": "ES", "BILOU": "LU"}


def by_tables(tags: list[str], scheme: str) -> set[tuple[str, int, int]]:
    """Return the entities of seqeval's strict mode: start, run on inside, keep if it may end."""
    closed = [*tags, "O"]
    found, at = set(), 0
    while at < len(tags):
        if closed[at][0] not in START[scheme]:
            at += 1
            continue
        end = at + 1
        while (
            closed[end - 1][0] + closed[end][0] in INSIDE[scheme]
            and closed[end - 1][1:] == closed[end][1:]
        ):
            end += 1
        if closed[end - 1][0] in COMPLETE[scheme]:
            found.add((tags[at][2:], at, end))
        at = end
    return found


def tags_of(scheme: str, length: int | None = None) -> st.SearchStrategy[list[str]]:
    letters = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}[scheme]
    names = ["O", *(f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC"))]
    return st.lists(st.sampled_from(names), min_size=length or 0, max_size=length or 12)


@pytest.mark.parametrize("scheme", ["IOB2", "IOBES", "BILOU"])
@given(data=st.data())
def test_entities_are_those_of_the_tables(scheme: Scheme, data: st.DataObject) -> None:
    tags = data.draw(tags_of(scheme))
    assert {tuple(entity) for entity in entities(tags, scheme)} == by_tables(tags, scheme)


@pytest.mark.parametrize("scheme", ["IOB2", "IOBES", "BILOU"])
@given(data=st.data())
def test_types_add_up_to_all_entities(scheme: Scheme, data: st.DataObject) -> None:
    true = data.draw(st.lists(tags_of(scheme), min_size=1, max_size=4))
    predicted = [data.draw(st.permutations(tags)) for tags in true]
    figures = per_type(predicted, true, scheme)
    together = all_types(predicted, true, scheme)
    assert together.support == sum(figure.support for figure in figures.values())
    weights = [figure.support for figure in figures.values()]
    if sum(weights):
        recalls = [figure.recall for figure in figures.values()]
        assert together.recall == pytest.approx(np.average(recalls, weights=weights))
    assert entity_f1(true, true, scheme) == (1.0 if together.support else 0.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # its means over no types
@pytest.mark.parametrize("scheme", ["IOB2", "IOBES", "BILOU"])
@given(data=st.data())
def test_figures_are_those_of_seqeval(scheme: Scheme, data: st.DataObject) -> None:
    """Of all entities together, and of each type, on random tags that may break the scheme."""
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    true, predicted = ([data.draw(tags_of(scheme, n)) for n in lengths] for _ in range(2))
    strict = {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme), "zero_division": 0}
    assert entity_f1(predicted, true, scheme) == pytest.approx(
        seqeval.metrics.f1_score(true, predicted, **strict)
    )
    theirs = seqeval.metrics.classification_report(true, predicted, output_dict=True, **strict)
    ours = per_type(predicted, true, scheme)
    assert set(ours) == set(theirs) - {"micro avg", "macro avg", "weighted avg"}
    for kind, figures in ours.items():
        expected = [theirs[kind][name] for name in ("precision", "recall", "f1-score", "support")]
        assert figures == pytest.approx(expected)


# The examples of seqeval's README.


def test_an_entity_with_another_begin_is_no_hit() -> None:
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert entity_f1(predicted, true, "IOB2") == 0.5
    assert per_type(predicted, true, "IOB2") == {"MISC": (0, 0, 0, 1), "PER": (1, 1, 1, 1)}


def test_an_entity_that_the_scheme_does_not_begin_is_none() -> None:
    true = [["B-NP", "I-NP", "O"]]
    assert entity_f1([["I-NP", "I-NP", "O"]], true, "IOB2") == 0.0
    assert all_types([["I-NP", "I-NP", "O"]], true, "IOB2") == (0.0, 0.0, 0.0, 1)


def test_an_unfinished_entity_is_none_in_iobes() -> None:
    assert entities(["B-PER", "I-PER", "E-PER", "O", "S-LOC"], "IOBES") == [
        Entity("PER", 0, 3),
        Entity("LOC", 4, 5),
    ]
    assert entities(["B-PER", "I-PER", "O", "E-LOC", "B-LOC"], "IOBES") == []


@pytest.mark.parametrize(
    ("names", "scheme"),
    [
        ("O B-PER I-PER", "IOB2"),
        ("B-PER O", "IOB2"),
        ("O B-PER I-PER E-PER S-PER", "IOBES"),
        ("S-PER O", "IOBES"),
        ("O B-PER I-PER L-PER U-PER", "BILOU"),
        ("B I O", "IOB2"),
        ("O I-PER", None),
        ("NOUN VERB", None),
        ("O", None),
        ("B-X E-X L-X", None),
        ("O B-PER other", None),
        ("O B-", None),
        ("S E O", None),
    ],
)
def test_the_scheme_is_recognised_by_the_names(names: str, scheme: str | None) -> None:
    assert scheme_of(names.split()) == scheme
