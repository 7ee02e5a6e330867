"""The metrics are those of scikit-learn and scipy, and 0.0 where these have nothing to divide
by.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqzb.data.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    accuracy,
    compute,
    f1,
    matthews,
    pearson,
    score,
    shown,
    spearman,
)
from sqzb.glue.tasks import task

pytestmark = pytest.mark.filterwarnings("error")

FRACTIONS = {name: metric for name, metric in METRICS.items() if name not in LOWER_IS_BETTER}
SEVERAL = ("macro_f1", "weighted_f1", "micro_f1", "subset_accuracy")  # take a row of labels too

Pairs = list[tuple[float, float]]
Metric = Callable[[Any, Any], float]
binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
# Few distinct values, so that ties and constants are common.
tied = st.integers(-4, 4).map(lambda quarter: quarter / 4)
numbers = st.lists(
    st.tuples(
        st.floats(-10, 10).map(lambda x: round(x, 3)) | tied,
        st.floats(0, 5).map(lambda x: round(x, 1)) | tied,
    ),
    min_size=2,
    max_size=40,
)
any_numbers = st.lists(st.tuples(st.floats(), st.floats()), max_size=10)


def columns(pairs: Pairs) -> tuple[NDArray[Any], NDArray[Any]]:
    table = np.array(pairs).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def zero_if_undefined(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)


@given(classes)
def test_accuracy_is_sklearns(pairs: Pairs) -> None:
    predictions, labels = columns(pairs)
    assert accuracy(predictions, labels) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, predictions)
    )


@given(binary)
def test_f1_is_sklearns(pairs: Pairs) -> None:
    predictions, labels = columns(pairs)
    expected = sklearn.metrics.f1_score(labels, predictions, pos_label=1, zero_division=0.0)
    assert f1(predictions, labels) == pytest.approx(expected)


@given(binary | classes)
def test_matthews_is_sklearns(pairs: Pairs) -> None:
    predictions, labels = columns(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants
        expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert matthews(predictions, labels) == pytest.approx(zero_if_undefined(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr)],
    ids=["pearson", "spearman"],
)
@given(pairs=numbers)
def test_correlations_are_scipys(ours: Metric, theirs: Any, pairs: Pairs) -> None:
    predictions, labels = columns(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants
        expected = theirs(predictions, labels).statistic
    assert ours(predictions, labels) == pytest.approx(zero_if_undefined(expected), abs=1e-9)


@given(numbers)
def test_correlations_do_not_depend_on_order_or_unit(pairs: Pairs) -> None:
    predictions, labels = columns(pairs)
    for correlation in (pearson, spearman):
        value = correlation(predictions, labels)
        assert correlation(labels, predictions) == pytest.approx(value, abs=1e-9)
        assert correlation(-4 * predictions, labels) == pytest.approx(-value, abs=1e-9)
        assert correlation(predictions[::-1], labels[::-1]) == pytest.approx(value, abs=1e-9)


@given(any_numbers)
def test_every_metric_of_any_numbers_is_a_number_without_a_warning(pairs: Pairs) -> None:
    for name, metric in METRICS.items():
        with np.errstate(all="raise", under="ignore"):
            value = metric(*columns(pairs))
        assert 0.0 <= value < math.inf if name in LOWER_IS_BETTER else -1.0 <= value <= 1.0


# Known by hand.


@pytest.mark.parametrize("metric", FRACTIONS.values(), ids=FRACTIONS)
def test_perfect_is_one_and_no_examples_is_zero(metric: Metric) -> None:
    assert metric([0, 1, 1, 0], [0, 1, 1, 0]) == pytest.approx(1.0)
    assert metric([], []) == 0.0


def test_f1_counts_the_class_with_index_one() -> None:
    # precision 1/1, recall 1/2; of class 0 it would be 4/5
    assert f1([1, 0, 0, 0], [1, 1, 0, 0]) == pytest.approx(2 / 3)
    assert f1([0, 0], [0, 0]) == 0.0


def test_ties_share_their_mean_rank() -> None:
    # ranks 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5
    assert spearman([7, 7, 8, 9], [1, 2, 3, 4]) == pytest.approx(math.sqrt(4.5 / 5))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300])
@pytest.mark.parametrize("metric", [matthews, pearson, spearman])
def test_a_constant_earns_nothing(metric: Metric, constant: float) -> None:
    # 0.1 seven times has a mean that is not 0.1 in floating point
    assert metric([constant] * 7, [0.1, 0.2, 0.3, 1.1, 0.7, 0.2, 0.9]) == 0.0
    assert metric([0.1, 0.2, 0.3, 1.1, 0.7, 0.2, 0.9], [constant] * 7) == 0.0


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e300, 1.7e308])
def test_pearson_does_not_depend_on_the_size_of_numbers(size: float) -> None:
    assert pearson([-size, size, size], [1, 2, 2]) == pytest.approx(1.0)


def test_rounding_does_not_lift_a_correlation_over_one() -> None:
    for length in range(2, 20):
        numbers = 0.1 * np.arange(length) ** 2
        assert 1 - 1e-12 < pearson(numbers, numbers) <= 1.0
        assert -1.0 <= pearson(numbers, -numbers) < -1 + 1e-12


@pytest.mark.parametrize("metric", [pearson, spearman])
def test_predictions_of_a_diverged_model_earn_nothing(metric: Metric) -> None:
    assert metric([math.nan, 1.0, 2.0], [0.0, 1.0, 2.0]) == 0.0


def test_matthews_counts_do_not_overflow_at_the_size_of_qqp() -> None:
    labels = np.arange(400_000) % 2
    assert matthews(labels, labels) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(("predictions", "labels"), [([0, 1], [0]), ([[0], [1]], [0, 1])])
def test_shapes_that_numpy_would_broadcast_are_refused(
    metric: Metric, predictions: Any, labels: Any
) -> None:
    with pytest.raises(ValueError, match="equal length"):
        metric(predictions, labels)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in SEVERAL])
def test_a_row_of_labels_is_refused_where_an_example_has_one(name: str) -> None:
    with pytest.raises(ValueError, match="equal length"):
        METRICS[name]([[0.1, 0.9]], [[0, 1]])


# By task.


def test_compute_gives_the_tasks_metrics_in_its_order() -> None:
    values = compute(task("mrpc").metrics, [1, 0, 0, 0], [1, 1, 0, 0])
    assert list(values.items()) == [("accuracy", 0.75), ("f1", pytest.approx(2 / 3))]
    assert compute(task("rte").metrics, [1, 0], [1, 1]) == {"accuracy": 0.5}


def test_score_is_the_mean_of_the_tasks_metrics_only() -> None:
    assert score(task("mrpc").metrics, {"f1": 0.5, "loss": 9.0, "accuracy": 0.7}) == pytest.approx(
        0.6
    )
    regression = task("stsb")
    values = compute(regression.metrics, [1.0, 2.0, 4.0], [0.0, 1.5, 5.0])
    assert list(values) == ["pearson", "spearman"]
    assert score(regression.metrics, values) == pytest.approx((values["pearson"] + 1.0) / 2)


def test_an_error_counts_negatively_as_score() -> None:
    assert score(["mae"], {"mae": 2.0, "pearson": 0.5}) == -2.0
    assert score(["mae"], {"mae": 2.0}) < score(["mae"], {"mae": 1.0})


def test_an_error_is_no_percentage() -> None:
    assert shown("mismatched_accuracy", 0.5) == "50.0%"
    assert shown("rmse", 12.5) == shown("mismatched_rmse", 12.5) == "12.5"
    assert shown("score", -12.5, ["rmse"]) == "-12.5"
    assert shown("score", 0.5, ["pearson"]) == "50.0%"
