"""Figures of classes and of several labels are scikit-learn's."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqzb.data.metrics import METRICS, mae, rmse
from sqzb.data.metrics.classes import confusion, per_class

classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)
finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
numbers = st.lists(st.tuples(finite, finite), min_size=1, max_size=30)


@st.composite
def several_labels(draw: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    examples, labels = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    bits = st.lists(st.integers(0, 1), min_size=examples * labels, max_size=examples * labels)
    predictions, truths = (np.array(draw(bits)).reshape(examples, labels) for _ in range(2))
    return predictions, truths


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@given(pairs=classes)
def test_f1_of_classes_is_sklearns(average: str, pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs).T
    due = sklearn.metrics.f1_score(labels, predictions, average=average, zero_division=0.0)
    assert METRICS[f"{average}_f1"](predictions, labels) == pytest.approx(due)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@given(both=several_labels())
def test_f1_of_several_labels_is_sklearns(average: str, both: Any) -> None:
    predictions, labels = both
    due = sklearn.metrics.f1_score(labels, predictions, average=average, zero_division=0.0)
    assert METRICS[f"{average}_f1"](predictions, labels) == pytest.approx(due)


@given(several_labels())
def test_subset_accuracy_is_sklearns(both: Any) -> None:
    predictions, labels = both
    due = sklearn.metrics.accuracy_score(labels, predictions)
    assert METRICS["subset_accuracy"](predictions, labels) == pytest.approx(due)


@given(classes)
def test_figures_by_class_and_confusion_are_sklearns(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs).T
    due = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(5), zero_division=0.0
    )
    assert np.array(per_class(predictions, labels, 5)) == pytest.approx(np.array(due).T)
    counts = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(5))
    assert (confusion(predictions, labels, 5) == counts).all()


@given(several_labels())
def test_figures_by_label_are_sklearns(both: Any) -> None:
    predictions, labels = both
    due = sklearn.metrics.precision_recall_fscore_support(labels, predictions, zero_division=0.0)
    assert np.array(per_class(predictions, labels, labels.shape[1])) == pytest.approx(
        np.array(due).T
    )


@given(numbers)
def test_errors_of_numbers_are_sklearns(pairs: list[tuple[float, float]]) -> None:
    predictions, labels = np.array(pairs).T
    assert mae(predictions, labels) == pytest.approx(
        sklearn.metrics.mean_absolute_error(labels, predictions)
    )
    assert rmse(predictions, labels) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(labels, predictions)
    )
