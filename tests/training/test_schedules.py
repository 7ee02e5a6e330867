"""The learning rate of every schedule: its ends, its height, no jumps."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.recipe import Optimizer
from sqzb.training.optimizers import learning_rate, schedule_of
from sqzb.training.schedules import Schedule

SHAPES = ("polynomial", "wsd", "cosine")
schedules = st.builds(
    Schedule,
    peak=st.floats(1e-6, 10),
    warmup=st.floats(0, 0.5),
    shape=st.sampled_from(SHAPES),
    decay_power=st.floats(1, 3),
    cooldown=st.floats(0.01, 0.5),
    floor=st.floats(0, 0.9),
)


@given(schedules, st.integers(1, 400))
def test_it_climbs_to_the_peak_and_never_rises_again(schedule: Schedule, steps: int) -> None:
    rates = [schedule.rate(step, steps) for step in range(steps)]
    warm = round(schedule.warmup * steps)
    assert all(0 < rate <= schedule.peak * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(schedule.peak)
    for number, (before, after) in enumerate(pairwise(rates), start=1):
        assert after >= before * (1 - 1e-12) if number <= warm else after <= before * (1 + 1e-12)


@given(schedules, st.integers(1, 400))
def test_it_ends_at_the_floor_without_a_jump(schedule: Schedule, steps: int) -> None:
    warm = round(schedule.warmup * steps)
    if warm == steps:
        return
    rates = [schedule.rate(step, steps) for step in range(steps + 1)]
    assert rates[-1] == pytest.approx(schedule.peak * schedule.floor, abs=1e-12)
    falling = steps - warm
    if schedule.shape == "wsd":
        falling = min(falling, max(1, round(schedule.cooldown * steps)))
    # The steepest fall of a power is at its beginning, that of a cosine in its middle.
    slope = math.pi / 2 if schedule.shape == "cosine" else schedule.decay_power
    largest = max(schedule.peak / warm if warm else 0, schedule.peak * slope / falling)
    for before, after in pairwise(rates):
        assert abs(after - before) <= largest * (1 + 1e-9)


@given(
    st.integers(1, 400), st.floats(1e-6, 10), st.floats(0, 1, exclude_max=True), st.floats(0.5, 3)
)
def test_the_polynomial_is_the_formula_of_earlier_versions_to_the_bit(
    steps: int, peak: float, warmup: float, power: float
) -> None:
    def earlier(step: int) -> float:
        warmup_steps = round(warmup * steps)
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        left = (steps - step) / (steps - warmup_steps)
        return float(peak * left**power)

    schedule = Schedule(peak, warmup, "polynomial", power)
    for step in range(steps):
        rate = earlier(step)
        assert schedule.rate(step, steps) == rate
        assert learning_rate(step, steps, peak, warmup, power) == rate


@given(st.integers(20, 400), st.floats(0, 0.4), st.floats(0.05, 0.5))
def test_wsd_is_constant_until_its_cooldown(steps: int, warmup: float, cooldown: float) -> None:
    schedule = Schedule(0.5, warmup, "wsd", cooldown=cooldown)
    first, last = round(warmup * steps), steps - round(cooldown * steps)
    assert {schedule.rate(step, steps) for step in range(first, last)} == {0.5}
    # The first step of the cooldown has the peak rate still.
    assert (schedule.rate(steps - 1, steps) < 0.5) == (steps - last > 1)


def test_the_cosine_is_half_down_in_the_middle() -> None:
    schedule = Schedule(1.0, 0.0, "cosine", floor=0.2)
    assert schedule.rate(50, 100) == pytest.approx(0.6)
    assert schedule.rate(25, 100) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_recipe_has_all_keys_of_its_schedule(shape: Any) -> None:
    settings = Optimizer(lr=0.5, schedule=shape, warmup=0.1, decay_power=2.0, cooldown=0.3)
    assert schedule_of(settings) == Schedule(0.5, 0.1, shape, 2.0, 0.3, 0.0)
