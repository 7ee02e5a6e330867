"""LAMB as its authors run it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch_optimizer import Lamb as TorchOptimizerLamb


class Lamb(TorchOptimizerLamb):
    """`torch_optimizer.Lamb` made that of You et al. 2020 (arXiv 1904.00962) as Google's code has it.

    The library's own clamps |w| to 10, which a large embedding passes, and adapts every tensor. Here |w| is not
    clamped, the moments are not corrected for bias, and a group with `adapt` off (LayerNorm and biases) has ratio 1.
    Its step reads back two norms of each tensor, for which a GPU has to wait; here the ratios stay where they are.

    together: whether all tensors take each operation at once, in few launches; by default on a GPU alone, for a CPU
    gains nothing from that, and has the better part of a tensor still in its cache.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        together: bool | None = None,
    ) -> None:
        self._together = together
        super().__init__(params, lr=lr, betas=betas, eps=eps, clamp_value=float("inf"), debias=False)
        for group in self.param_groups:
            group.setdefault("adapt", True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            together = self._together
            if together is None:
                together = any(parameter.is_cuda for parameter in parameters)
            for some in [parameters] if together else [[parameter] for parameter in parameters]:
                self._update(some, group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        first, second = (self._moments(parameters, name) for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        updates = torch._foreach_sqrt(second)
        torch._foreach_add_(updates, group["eps"])
        updates = torch._foreach_div(first, updates)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        if not group["adapt"]:
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
            return
        w, u = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
        ratios = torch.where((w > 0) & (u > 0), w / u, 1.0)
        for parameter, update, ratio in zip(parameters, updates, ratios, strict=True):
            parameter.addcmul_(update, ratio, value=-group["lr"])

    def _moments(self, parameters: list[torch.Tensor], name: str) -> list[torch.Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]
