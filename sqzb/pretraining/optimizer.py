"""LAMB as its authors run it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch_optimizer import Lamb as TorchOptimizerLamb


class Lamb(TorchOptimizerLamb):
    """`torch_optimizer.Lamb` made that of You et al. 2020 (arXiv 1904.00962) as Google's code has it.

    The library's own clamps |w| to 10, which a large embedding passes, and adapts every tensor. Here |w| is not
    clamped, the moments are not corrected for bias, and a group with `adapt` off (LayerNorm and biases) has ratio 1.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, clamp_value=float("inf"), debias=False)
        for group in self.param_groups:
            group.setdefault("adapt", True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update, group by group: the library has its switch for ratio 1, `adam`, on the whole optimizer."""
        loss = closure() if closure is not None else None
        groups = self.param_groups
        try:
            for group in groups:
                self.param_groups, self.adam = [group], not group["adapt"]
                super().step()
        finally:
            self.param_groups = groups
        return loss
