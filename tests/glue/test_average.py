"""GLUE's one number for a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.glue.average import average
from sqzb.glue.tasks import TASKS


def test_average_counts_mnli_once_ax_never_and_wnli_as_asked() -> None:
    scores = {
        (name, "test"): 0.5 for name in ("cola", "sst2", "mrpc", "qqp", "stsb", "qnli", "rte")
    }
    scores |= {("mnli", "test_matched"): 0.9, ("mnli", "test_mismatched"): 0.7}
    assert average(scores, wnli=False) == pytest.approx((7 * 0.5 + 0.8) / 8)
    more = scores | {("wnli", "test"): 0.2, ("ax", "test"): 0.0}
    assert average(more, wnli=False) == pytest.approx(average(scores, wnli=False))
    assert average(more, wnli=True) == pytest.approx((7 * 0.5 + 0.8 + 0.2) / 9)


@given(st.dictionaries(st.sampled_from(sorted(TASKS)), st.floats(-1, 1)), st.booleans())
def test_average_is_of_every_task_or_refused(values: dict[str, float], wnli: bool) -> None:
    scores = {(name, "validation"): value for name, value in values.items()}
    wanted = set(TASKS) - {"ax"} - (set() if wnli else {"wnli"})
    missing = [name for name in TASKS if name in wanted - set(values)]
    if missing:
        with pytest.raises(ValueError, match=f"none of {', '.join(missing)}$"):
            average(scores, wnli)
    else:
        assert average(scores, wnli) == pytest.approx(np.mean([values[name] for name in wanted]))
