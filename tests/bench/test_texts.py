"""The texts of a turn have the lengths of all texts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saved_runs import remember, save_run
from sqzb.bench.contestants import open_own
from sqzb.bench.texts import (
    MEASURED,
    SAMPLED,
    Source,
    Texts,
    for_accuracy,
    random_batches,
    read_texts,
    sample,
    text_batches,
)
from sqzb.data.dataset import Classes, Example
from sqzb.errors import UserError


def texts(lengths: list[int]) -> Texts:
    examples = [Example("x" * length, None, None, row) for row, length in enumerate(lengths)]
    return Texts("file", examples, None)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300))
def test_a_sample_has_each_text_once_and_the_same_quantiles(lengths: list[int]) -> None:
    chosen = sample(texts(lengths), 1)
    assert len({example.row for example in chosen}) == len(chosen) == min(SAMPLED, len(lengths))
    if len(lengths) <= SAMPLED:
        return
    ordered, of_sample = sorted(lengths), sorted(len(example.text_a) for example in chosen)
    for rank, length in enumerate(of_sample):
        part = len(ordered) / SAMPLED
        assert ordered[int(rank * part)] <= length <= ordered[int((rank + 1) * part - 1e-9)]


def test_a_batch_larger_than_the_file_is_refused() -> None:
    with pytest.raises(UserError, match="--batch is 4"):
        sample(texts([1, 2, 3]), 4)


@given(st.integers(1, 3 * MEASURED))
def test_examples_of_the_accuracy_are_bounded(count: int) -> None:
    chosen = for_accuracy(texts([1] * count))
    assert 0 < len(chosen) <= MEASURED and (len(chosen) == count or count > MEASURED)


def test_batches_are_whole_and_padded(vocabulary: Path, tmp_path: Path) -> None:
    (own,) = open_own(str(save_run(tmp_path / "run", vocabulary, ("a", "b"))), tmp_path)
    examples = [Example("the letter " * n, None, None, n) for n in (1, 2, 3, 40, 5)]
    batches = text_batches(own, examples, Classes(("",)), 2)
    assert len(batches) == 2
    for inputs in batches:
        shape = inputs["input_ids"].shape
        assert shape[0] == 2 and shape[1] <= own.max_length == 32
        assert inputs["attention_mask"].sum(1).max() == shape[1]
    (inputs, *_) = random_batches([own], 3, 7)
    assert inputs["input_ids"].shape == (3, 7) and inputs["attention_mask"].all()


def test_files_with_and_without_labels(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    remember(run, "review")
    (own,) = open_own(str(run), tmp_path / "work")
    labelled, plain, lines = (tmp_path / name for name in ("l.csv", "p.csv", "t.txt"))
    labelled.write_text("review,label\nthe letter,a\na garden,b\n")
    plain.write_text("id,review\n1,the letter\n2,\n3,a garden\n")
    lines.write_text("the letter\na garden\n")
    read = read_texts(str(run), own, Source([str(labelled)]))
    assert read.data is not None and [example.label for example in read.examples] == [0, 1]
    for file in (plain, lines):
        read = read_texts(str(run), own, Source([str(file)]))
        assert read.data is None
        assert [example.text_a for example in read.examples] == ["the letter", "a garden"]
    empty = tmp_path / "empty.csv"
    empty.write_text("review\n")
    with pytest.raises(UserError):
        read_texts(str(run), own, Source([str(empty)]))
