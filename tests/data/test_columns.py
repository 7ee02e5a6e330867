"""Columns that are recognised, and what is asked where several could be meant."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.columns import Columns, check_same, choose
from sqzb.data.formats.common import Table
from sqzb.errors import UserError


def table(names: str | Sequence[str], path: str = "a.csv") -> Table:
    columns = tuple(names.split() if isinstance(names, str) else names)
    return Table(path, columns, "line", lambda wanted: iter(()))


def refusal(names: str | Sequence[str], text: Sequence[str] = (), label: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        choose(table(names), text, label)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        ("text label", "text", "label"),
        ("id review sentiment", "review", "sentiment"),
        ("Review_Text Class", "Review_Text", "Class"),
        ("sentence1 sentence2 label idx", "sentence1 sentence2", "label"),
        ("index question sentence label", "question sentence", "label"),
        ("premise hypothesis genre gold_label", "premise hypothesis", "gold_label"),
        ("text_a text_b score", "text_a text_b", "score"),
        ("question1 question2 target", "question1 question2", "target"),
        ("title text label label_text", "text", "label"),
        ("title target", "title", "target"),
        ("words tags", "words", "tags"),
        ("id tokens ner_tags", "tokens", "ner_tags"),
        ("tokens labels", "tokens", "labels"),
        ("text tokens label", "text", "label"),
        ("foo label", "foo", "label"),  # one column is left over
        ("text foo", "text", "foo"),
        (["", "foo", "label"], "foo", "label"),  # the column without a name numbers the rows
        ("Unnamed:0 id foo text", "text", "foo"),
    ],
)
def test_recognised(names: str | list[str], text: str, label: str) -> None:
    expected = Columns(tuple(text.split()), label, ("text", "label"))
    assert choose(table(names)) == expected
    backwards = list(reversed(table(names).columns))
    assert choose(table(backwards)) == expected


@given(st.permutations(["a", "b", "c d"]), st.integers(1, 2))
def test_given_names_are_taken_as_they_are(names: list[str], texts: int) -> None:
    chosen = choose(table(["text", "label", *names]), names[:texts], names[2])
    assert chosen == Columns(tuple(names[:texts]), names[2], ())


def test_one_is_given_and_the_other_recognised() -> None:
    assert choose(table("a b label"), ["a"]) == Columns(("a",), "label", ("label",))
    assert choose(table("text a b"), label="b") == Columns(("text",), "b", ("text",))
    assert choose(table("text label score"), label="score").text == ("text",)


def test_words_are_chosen_where_labels_are_tags() -> None:
    assert choose(table("text tokens tags"), tokens=True).text == ("tokens",)
    assert choose(table("tokens ner_tags pos_tags"), label="pos_tags").text == ("tokens",)


def test_without_labels() -> None:
    assert choose(table("text id more"), labelled=False) == Columns(("text",), None, ("text",))


@pytest.mark.parametrize(
    ("names", "text", "label", "message"),
    [
        ("text label", ["texts"], None, "a.csv has no column 'texts'. Did you mean 'text'"),
        ("text Label", [], "label", "no column 'label'. Did you mean 'Label'.* with --label"),
        ("text label", ["zzz"], None, r"no column 'zzz'\. Its columns are 'text', 'label'"),
        ("text review label", [], None, "texts may be in 'text' or 'review'. Choose with --text"),
        (
            "text label target",
            [],
            None,
            "labels may be in 'label' or 'target'. Choose with --label",
        ),
        ("tokens ner_tags pos_tags", [], None, "labels may be in 'ner_tags' or 'pos_tags'"),
        ("a b label", [], None, "no column is recognised as that of the texts.*'a', 'b', 'label'"),
        ("text id", [], None, "no column is recognised as that of the labels"),
        ("text a b", [], None, "no column is recognised as that of the labels"),
        ("a b c", ["a", "b", "c"], None, "--text names 3 columns"),
        ("a b", ["a", "a"], None, "name one column twice"),
        ("a b", ["a"], "a", "name one column twice"),
        (["1", "a film that is good and long"], [], None, "first line looks like data"),
        (["0.5", "x"], ["text"], None, "no column 'text'.*first line looks like data"),
    ],
)
def test_refusals(
    names: str | Sequence[str], text: Sequence[str], label: str | None, message: str
) -> None:
    assert re.search(message, refusal(names, text, label))


def test_further_files_must_have_the_columns() -> None:
    columns = Columns(("text",), "label")
    check_same(table("more label text"), columns, "a.csv")
    with pytest.raises(UserError, match=r"b\.csv has no column 'label'.* a\.csv has this column"):
        check_same(table("text lable", "b.csv"), columns, "a.csv")
