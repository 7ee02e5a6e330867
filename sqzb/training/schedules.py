"""The learning rate as a function of the step alone, without state."""

import math
from typing import Literal, NamedTuple

Shape = Literal["polynomial", "wsd", "cosine"]


class Schedule(NamedTuple):
    """A learning rate: linear warmup, then a shape.

    peak: the highest rate.
    warmup: share of the steps in which the rate rises.
    shape: "polynomial" and "cosine" fall over all other steps. "wsd" stays at the peak and falls
    over the cooldown (warmup, stable, decay).
    decay_power: exponent of the polynomial, which is also the shape of wsd's decay.
    cooldown: share of the steps in which the rate of wsd falls.
    floor: rate at the end, as a share of the peak.
    """

    peak: float
    warmup: float
    shape: Shape = "polynomial"
    decay_power: float = 1.0
    cooldown: float = 0.2
    floor: float = 0.0

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step `step` (from 0) of `steps`.

        No jump is higher than the steps of the rise or of the fall. The first step has a rate over
        0, and the rate would reach the floor at step `steps`, which is no step of the run.
        """
        warmup_steps = round(self.warmup * steps)
        if step < warmup_steps:
            return self.peak * (step + 1) / warmup_steps
        falling = steps - warmup_steps
        if self.shape == "wsd":
            falling = min(falling, max(1, round(self.cooldown * steps)))
        left = min(1.0, (steps - step) / falling)
        if self.shape == "cosine":
            height = (1 - math.cos(math.pi * left)) / 2
        else:
            height = left**self.decay_power
        return float(self.peak * (self.floor + (1 - self.floor) * height))
