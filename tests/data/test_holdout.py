"""The held-out share: by texts, of each label, in any order, and nested in a greater share."""

from collections import Counter, defaultdict
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.dataset import Example, Label
from sqzb.data.holdout import held_out

SHARES = st.floats(0.01, 0.99)
TEXTS = st.one_of(st.integers(0, 9).map(str), st.text(max_size=3))
CLASSES = st.integers(0, 3)
LABELS = st.one_of(CLASSES, st.lists(CLASSES, max_size=3).map(tuple), st.floats(0, 5))


def example(text: str, label: Label, row: int = 0) -> Example:
    return Example(text, None, label, row)


def of(label_strategy: st.SearchStrategy[Label]) -> st.SearchStrategy[list[Example]]:
    return st.lists(st.builds(example, TEXTS, label_strategy), max_size=40)


def chosen(examples: list[Example], share: float) -> Counter[Example]:
    sides = held_out(examples, share)
    return Counter(one for one, is_held_out in zip(examples, sides, strict=True) if is_held_out)


@given(of(LABELS), SHARES)
def test_same_texts_are_on_the_same_side(examples: list[Example], share: float) -> None:
    sides = defaultdict(set)
    for one, side in zip(examples, held_out(examples, share), strict=True):
        sides[one.text_a].add(side)
    assert all(len(found) == 1 for found in sides.values())


@given(of(LABELS), SHARES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(examples: list[Example], share: float, random: Random) -> None:
    mixed = random.sample(examples, len(examples))
    assert chosen(mixed, share) == chosen(examples, share)


@given(of(LABELS), SHARES, SHARES)
def test_a_greater_share_has_the_same_and_more(
    examples: list[Example], share: float, other: float
) -> None:
    low, high = sorted((share, other))
    assert chosen(examples, low) <= chosen(examples, high)


@given(st.lists(CLASSES, min_size=1, max_size=200), SHARES)
def test_each_label_has_its_exact_share(labels: list[int], share: float) -> None:
    """With different texts."""
    examples = [example(f"text {row}", label) for row, label in enumerate(labels)]
    held = Counter(one.label for one in chosen(examples, share))
    for label, n in Counter(labels).items():
        assert held[label] == min(n - 1, max(1, round(share * n)))


def test_an_example_with_several_labels_counts_for_the_rarest() -> None:
    often = [example(f"often {row}", (0,)) for row in range(100)]
    seldom = [example(f"seldom {row}", (0, 1)) for row in range(10)]
    held = Counter(one.label for one in chosen(often + seldom, 0.1))
    assert held == {(0,): 10, (0, 1): 1}


def test_nothing_is_held_out_where_the_share_is_none() -> None:
    examples = [example(str(row), row % 2) for row in range(10)]
    assert not any(held_out(examples, 0.0))


def test_the_choice_is_the_same_in_every_version() -> None:
    """A resumed run or a later evaluation must hold out what training held out."""
    examples = [example(f"text {row}", row % 2) for row in range(20)]
    rows = [row for row, side in enumerate(held_out(examples, 0.2)) if side]
    assert rows == [2, 3, 17, 18]
