"""Runs are compared at equal shares of their time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.bench.curves import Curve

curves = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 10)), min_size=1, max_size=8).map(
    lambda points: Curve(
        np.cumsum([gap for gap, _ in points]), np.array([loss for _, loss in points])
    )
)


@given(curves)
def test_a_run_has_its_last_loss_at_its_end(curve: Curve) -> None:
    assert curve.at(1) == curve.losses[-1]
    share = curve.share_until(float(curve.losses[-1]))
    assert share is not None and 0 < share <= 1 + 1e-12


@given(curves, st.floats(0.1, 10))
def test_a_loss_that_is_reached_is_the_loss_at_that_time(curve: Curve, loss: float) -> None:
    share = curve.share_until(loss)
    if share is None:
        assert (curve.losses > loss).all()
    elif curve.losses[0] > loss:
        assert curve.at(share) == pytest.approx(loss, rel=1e-6, abs=1e-6)
    else:
        assert share * curve.seconds[-1] == pytest.approx(curve.seconds[0])


def test_half_of_the_time_is_between_two_evaluations() -> None:
    curve = Curve(np.array([10.0, 30.0, 40.0]), np.array([6.0, 4.0, 3.0]))
    assert curve.at(0.5) == 5.0 and curve.share_until(5.0) == 0.5
    assert curve.share_until(2.9) is None
