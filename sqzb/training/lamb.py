"""LAMB as its authors run it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch_optimizer import Lamb as TorchOptimizerLamb

MOMENTS = ("exp_avg", "exp_avg_sq")


class Lamb(TorchOptimizerLamb):
    """`torch_optimizer.Lamb` made that of You et al. 2020 (arXiv 1904.00962) as Google's code has it.

    The library's own clamps |w| to 10, which a large embedding passes, and adapts every tensor.
    Here |w| is not clamped, the moments are not corrected for bias, and a group with `adapt` off
    (LayerNorm and biases) has ratio 1.

    together: True takes each operation for all tensors at once and leaves every number on the
    device: a GPU then waits for nothing and gets few launches. False goes tensor by tensor, which
    is faster on a CPU, whose cache still holds the better part of a tensor. None: together on a
    GPU.

    `found_inf`, a number on the parameters' device under the name that torch's own optimizers take
    it by: where it is 1, weights and moments stay as they are. All gradients must be 0 then, since
    0 x NaN is NaN.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        together: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, clamp_value=float("inf"), debias=False
        )
        self._together = together
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
            if together and parameters:
                self._update_together(parameters, group)
            else:
                for parameter in parameters:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        if self.found_inf is not None and self.found_inf:
            return
        gradient = parameter.grad
        assert gradient is not None
        first, second = (self._moment(parameter, name) for name in MOMENTS)
        beta1, beta2 = group["betas"]
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        update = first / second.sqrt().add_(group["eps"])
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
        if not group["adapt"]:
            parameter.add_(update, alpha=-group["lr"])
            return
        parameter.addcmul_(
            update, _trust_ratio(parameter.norm(), update.norm()), value=-group["lr"]
        )

    def _update_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        first, second = (
            [self._moment(parameter, name) for parameter in parameters] for name in MOMENTS
        )
        beta1, beta2 = group["betas"]
        # An update that must not happen has a rate of 0 and moments that keep their share, not new
        # code to run.
        lr, keep1, keep2 = self._unless_inf(
            parameters[0], (group["lr"], 0.0), (beta1, 1.0), (beta2, 1.0)
        )
        torch._foreach_mul_(first, keep1)
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(second, keep2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        updates = torch._foreach_sqrt(second)
        torch._foreach_add_(updates, group["eps"])
        updates = torch._foreach_div(first, updates)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        if group["adapt"]:
            w, u = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
            # One number a tensor, in a list that never leaves the device.
            torch._foreach_mul_(updates, list((_trust_ratio(w, u) * lr).unbind()))
        else:
            torch._foreach_mul_(updates, lr)
        torch._foreach_sub_(parameters, updates)

    def _unless_inf(self, like: Tensor, *choices: tuple[float, float]) -> list[Tensor]:
        """The first number of each pair, or the second where `found_inf` is 1, as numbers on the device."""
        found = []
        for usual, otherwise in choices:
            number = like.new_full((), usual)
            found.append(
                number if self.found_inf is None else number.where(self.found_inf == 0, otherwise)
            )
        return found

    def _moment(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        moment: Tensor = state[name]
        return moment


def _trust_ratio(w: Tensor, u: Tensor) -> Tensor:
    """|w| / |u|, and 1 where either is 0."""
    return torch.where((w > 0) & (u > 0), w / u, 1.0)
