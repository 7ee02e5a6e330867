"""Parameter groups, and the learning rate as a function of the step alone, without state."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices, decayed and adapted; LayerNorm and biases, neither.

    Parameters are told apart by their shape, because the published names spell LayerNorm in two
    ways.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: float, decay_power: float) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`.

    The rate rises linearly over the fraction `warmup` of the steps, then falls to zero as a
    polynomial, without a jump in between.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    left = (steps - step) / (steps - warmup_steps)
    return float(peak * left**decay_power)
