"""Curves that were thinned, and the phases of pretraining on one axis."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from report_runs import finetuned, pretrained
from sqzb.report.curves import offsets, thinned
from sqzb.report.runs import Series, read_runs

FIGURES = arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e300, 1e300))


@given(FIGURES, st.integers(1, 100))
def test_a_thinned_curve_keeps_the_extremes(values: NDArray[np.float64], most: int) -> None:
    steps = np.arange(len(values), dtype=np.float64)
    curve = thinned(Series(steps, values), most)
    assert len(curve.steps) == min(most, len(values))
    assert curve.lowest.min() == values.min() and curve.highest.max() == values.max()
    assert np.all(np.diff(curve.steps) > 0)
    if len(values) <= most:
        assert np.array_equal(curve.means, values)
    spread = 1e-9 * np.abs(values).max()
    assert np.all(curve.lowest - spread <= curve.means)
    assert np.all(curve.means <= curve.highest + spread)


def test_phases_follow_one_another(tmp_path: Path) -> None:
    one = pretrained(tmp_path / "one", steps=40)
    two = pretrained(tmp_path / "two", steps=20, start_from=str(one))
    three = pretrained(tmp_path / "three", steps=20, start_from=str(two))
    four = finetuned(tmp_path / "four", model=str(three))
    runs = read_runs([str(path) for path in (four, three, two, one)])
    assert offsets(runs) == {"one": 0, "two": 40, "three": 60, "four": 0}


def test_runs_that_start_from_one_another_are_drawn(tmp_path: Path) -> None:
    one = pretrained(tmp_path / "one", start_from=str(tmp_path / "two"))
    two = pretrained(tmp_path / "two", start_from=str(one))
    assert offsets(read_runs([str(one), str(two)])) == {"one": 40, "two": 40}
