"""Weights of classes are scikit-learn's."""

from typing import Any

import numpy as np
import pytest
import sklearn.utils.class_weight
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqzb.data.dataset import Classes, DataSet, Kind, Labels, Split, Tags
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.weights import balanced_weights
from sqzb.model.heads import IGNORED


def data(kind: Kind) -> DataSet:
    splits = (("validation",), ())
    return DataSet("own", kind, 1, (), lambda _: Split([], []), "train", *splits, True)


def encoded(labels: NDArray[Any]) -> Encoded:
    return Encoded([], [], labels, 0)


@pytest.mark.parametrize("kind", [Classes(("a", "b", "c")), Tags(("O", "B-X", "I-X"))])
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_weights_are_sklearns(kind: Kind, labels: list[int]) -> None:
    true = np.array([*labels, IGNORED])
    weights = balanced_weights(data(kind), encoded(true)).numpy()
    occurring = np.unique(labels)
    due = sklearn.utils.class_weight.compute_class_weight("balanced", classes=occurring, y=labels)
    np.testing.assert_allclose(weights[occurring], due, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1.0)
    assert all(weights[missing] == 1 for missing in set(range(3)) - set(labels))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_both_sides_of_a_label_weigh_the_same(rows: list[tuple[bool, bool]]) -> None:
    labels = np.array([*rows, (IGNORED, IGNORED)], np.float32)
    weights = balanced_weights(data(Labels(("x", "y"))), encoded(labels)).numpy()
    for column, weight in zip(labels[:-1].T, weights, strict=True):
        positive, negative = (column == 1).sum(), (column == 0).sum()
        if positive and negative:
            assert weight * positive == pytest.approx(negative)
        else:
            assert weight == 1
