"""The fits of probabilities are the best ones: scipy and a search through all find none better."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from examples import scaled
from sqzb.data.metrics import f1
from sqzb.data.metrics.calibration import (
    COLDEST,
    HOTTEST,
    best_threshold,
    expected_calibration_error,
    fit_temperature,
    log_softmax,
    nll,
    sigmoid,
    softmax,
)

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, examples: int = 60, classes: int = 3) -> tuple[Any, Any]:
    """Logits, and labels that follow them in part."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, generator.choice([0.5, 3.0]), (examples, classes))
    noise = generator.normal(0, generator.choice([0.5, 3.0]), (examples, classes))
    return logits, (logits + noise).argmax(1)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=9))
def test_probabilities_are_scipys(values: list[float]) -> None:
    assert sigmoid(values) == pytest.approx(scipy.special.expit(values), rel=1e-12)
    assert softmax(values) == pytest.approx(scipy.special.softmax(values), rel=1e-9)
    assert log_softmax(values) == pytest.approx(scipy.special.log_softmax(values), rel=1e-9)


@given(seeds)
def test_cross_entropy_is_sklearns(seed: int) -> None:
    logits, labels = drawn(seed)
    due = log_loss(labels, softmax(logits, 1.5), labels=range(3))
    assert nll(logits, labels, 1.5).mean() == pytest.approx(due)


@settings(max_examples=scaled(7))
@given(seeds)
def test_the_temperature_is_the_likeliest(seed: int) -> None:
    logits, labels = drawn(seed)
    fitted = fit_temperature(logits, labels)
    due = scipy.optimize.minimize_scalar(
        lambda log_t: nll(logits, labels, np.exp(log_t)).mean(),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
    )
    assert nll(logits, labels, fitted).mean() <= due.fun + 1e-9


def test_a_model_without_a_mistake_has_no_temperature() -> None:
    assert fit_temperature(np.eye(3), np.arange(3)) == 1.0
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature([[np.nan, 1.0]], [0]) == 1.0


def test_known_calibration_errors() -> None:
    # Four examples at 0.9, of which three are right: 0.15 apart; and a certain one that is wrong.
    four = np.array([[0.1, 0.9]] * 4)
    assert expected_calibration_error(four, [1, 1, 1, 0]) == pytest.approx(0.15)
    both = np.concatenate([four, [[1.0, 0.0]]])
    assert expected_calibration_error(both, [1, 1, 1, 0, 1]) == pytest.approx((4 * 0.15 + 1) / 5)
    assert expected_calibration_error(np.zeros((0, 2)), []) == 0.0


@given(seeds)
def test_the_calibration_error_is_a_mean_over_bins(seed: int) -> None:
    logits, labels = drawn(seed)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    due = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            due += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(due)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=20))
def test_no_threshold_is_better(pairs: list[tuple[int, bool]]) -> None:
    probabilities = np.array([eighths / 8 for eighths, _ in pairs])
    labels = np.array([label for _, label in pairs])

    def f1_at(threshold: float) -> float:
        return f1(probabilities >= threshold, labels)

    chosen = best_threshold(probabilities, labels)
    best = max(f1_at(sixteenths / 16) for sixteenths in range(1, 17))
    assert f1_at(chosen) == pytest.approx(best)
    assert 0 < chosen < 1
    if f1_at(0.5) == pytest.approx(best):
        assert chosen == 0.5


def test_a_label_that_never_holds_keeps_one_half() -> None:
    assert best_threshold([0.1, 0.4, 0.9], [0, 0, 0]) == 0.5
    assert best_threshold([], []) == 0.5
