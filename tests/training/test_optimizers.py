"""Parameter groups of the real model, and the rate of every step."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
)
from sqzb.model.checkpoint import SavedModel
from sqzb.training.optimizers import learning_rate, parameter_groups


@pytest.mark.parametrize(
    "kind",
    [SqueezeBertForPreTraining, SqueezeBertForMaskedLM, SqueezeBertForSequenceClassification],
)
def test_layer_norms_and_biases_are_neither_decayed_nor_adapted(
    kind: type[SavedModel], tiny_config: SqueezeBertConfig
) -> None:
    model = kind(tiny_config)
    decayed, plain = parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], decayed["adapt"], plain["weight_decay"], plain["adapt"]) == (
        0.01,
        True,
        0.0,
        False,
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [names[id(parameter)] for group in (decayed, plain) for parameter in group["params"]]
    assert sorted(grouped) == sorted(names.values())  # each once
    assert {names[id(parameter)] for parameter in plain["params"]} == {
        name for name in names.values() if name.endswith("bias") or "layernorm" in name.lower()
    }


plans = st.tuples(
    st.integers(1, 500), st.floats(1e-6, 10), st.floats(0, 1, exclude_max=True), st.floats(0.5, 3)
).map(lambda plan: {"steps": plan[0], "peak": plan[1], "warmup": plan[2], "decay_power": plan[3]})


@given(plans)
def test_the_rate_climbs_to_the_peak_and_falls_from_there(plan: dict[str, float]) -> None:
    steps, peak = int(plan["steps"]), plan["peak"]
    rates = [learning_rate(step, **{**plan, "steps": steps}) for step in range(steps)]  # type: ignore[arg-type]
    warm = round(plan["warmup"] * steps)
    assert all(0 < value <= peak * (1 + 1e-12) for value in rates)
    assert max(rates) == pytest.approx(peak)
    for number, (before, after) in enumerate(pairwise(rates), start=1):
        assert after >= before * (1 - 1e-12) if number <= warm else after < before


@given(plans)
def test_the_rate_has_no_jump_and_ends_at_zero(plan: dict[str, float]) -> None:
    steps, peak, power = int(plan["steps"]), plan["peak"], max(1.0, plan["decay_power"])
    plan = {**plan, "steps": steps, "decay_power": power}
    warm = round(plan["warmup"] * steps)
    rates = [0.0, *(learning_rate(step, **plan) for step in range(steps))]  # type: ignore[arg-type]
    if warm < steps:
        rates.append(learning_rate(steps, **plan))  # type: ignore[arg-type]
        assert rates[-1] == 0
    largest = max(peak / warm if warm else peak, peak * power / max(1, steps - warm))
    for before, after in pairwise(rates if warm else rates[1:]):
        assert abs(after - before) <= largest * (1 + 1e-9)


def test_the_published_phase_one() -> None:
    plan = {"steps": 56_000, "peak": 2.5e-3, "warmup": 0.28, "decay_power": 1.0}
    assert learning_rate(0, **plan) == pytest.approx(2.5e-3 / 15_680)  # type: ignore[arg-type]
    assert learning_rate(15_679, **plan) == learning_rate(15_680, **plan) == pytest.approx(2.5e-3)  # type: ignore[arg-type]
    assert learning_rate(15_680 + 20_160, **plan) == pytest.approx(1.25e-3)  # type: ignore[arg-type]
