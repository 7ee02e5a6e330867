"""YAML texts that stand for too much are refused before they take time or memory."""

from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sqzb.recipe.strict_yaml import MOST_CHARACTERS, dump, explain, parse

LETTERS = "abcdefghij"


def bomb(value: str, one: str) -> str:
    """Nine aliases of nine aliases of nine ...; `one` makes a value of nine aliases."""
    lines = [f"a: &a {value}"]
    for before, name in pairwise(LETTERS):
        lines.append(f"{name}: &{name} {one % ','.join([f'*{before}'] * 9)}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        (bomb("[x, x, x, x, x, x, x, x, x]", "[%s]"), "aliases stand for over 262,144", 6),
        (bomb("{x: 1}", "{<<: [%s]}"), "aliases stand for over 262,144", 6),
        (f"a: &a {'x' * 9000}\nb: [{','.join(['*a'] * 50)}]", "aliases stand for over", 2),
        ("seed: 1\na: &a [*a]", "an alias stands for a value that holds the alias", 2),
        ("a: &a {b: {c: *a}}", "an alias stands for a value that holds the alias", 1),
        (f"b: 1\na: {'9' * 5000}", "a number of over 100 digits", 2),
        (f"a: {':'.join('1' * 3000)}", "a number of over 100 digits", 1),
    ],
)
def test_what_stands_for_too_much_is_refused_with_its_line(
    text: str, problem: str, line: int
) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        parse(text)
    message = explain(caught.value, text)
    assert message.startswith(f"line {line}, column ") and problem in message


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="over 262,144 characters"):
        parse("a: " + "x" * MOST_CHARACTERS)


values = st.recursive(
    st.integers(-(10**20), 10**20) | st.text("ab1e.-: ", max_size=6) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.integers(1, 50))
def test_aliases_of_ordinary_size_are_read(value: object, times: int) -> None:
    shared = [value] * times  # written with an alias
    assert parse(dump({"a": shared, "b": value})) == {"a": shared, "b": value}


def test_keys_are_set_once() -> None:
    with pytest.raises(yaml.YAMLError, match="k1 is set twice"):
        parse("k1: 1\nk2: 1\nk1: 2")
    with pytest.raises(yaml.YAMLError, match="unhashable key"):
        parse("{[1]: 2, [1]: 3}")
