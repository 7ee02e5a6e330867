"""The LAMB optimizer as in its authors' code."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch_optimizer import Lamb as TorchOptimizerLamb

from sqzb.training.norms import norms

MOMENTS = ("exp_avg", "exp_avg_sq")


class Lamb(TorchOptimizerLamb):
    """`torch_optimizer.Lamb` with the rules of You et al. 2020 and Google's code.

    The paper is arXiv 1904.00962. The library clamps |w| to 10, which the norm of a large embedding
    exceeds, and adapts every tensor. Here |w| is not clamped, the moments are not corrected for
    bias, and a group with `adapt` off (LayerNorm and biases) has trust ratio 1.

    together: True applies each operation to all tensors at once and reads no number from the
    device, so that a GPU gets few launches and never waits. False updates tensor by tensor, which
    is faster on a CPU, because much of a tensor is still in the cache. None: together on a GPU
    only.

    The attribute `found_inf` is a number on the parameters' device, with the name that torch's own
    optimizers have for it. Where it is 1, weights and moments do not change. All gradients must be
    0 then, since 0 x NaN is NaN.
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
        """Update every parameter that has a gradient."""
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
        ratio = _trust_ratio(*norms([parameter, update]))
        parameter.addcmul_(update, ratio, value=-group["lr"])

    def _update_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        first = [self._moment(parameter, MOMENTS[0]) for parameter in parameters]
        second = [self._moment(parameter, MOMENTS[1]) for parameter in parameters]
        beta1, beta2 = group["betas"]
        # An update that must not happen has a rate of 0, and moments that decay by a factor of 1:
        # a branch would have to read `found_inf` from the device.
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
            w, u = norms(parameters), norms(list(updates))
            # The list has one number on the device for each tensor.
            torch._foreach_mul_(updates, list((_trust_ratio(w, u) * lr).unbind()))
        else:
            torch._foreach_mul_(updates, lr)
        torch._foreach_sub_(parameters, updates)

    def _unless_inf(self, like: Tensor, *choices: tuple[float | Tensor, float]) -> list[Tensor]:
        """Return the first number of each pair, or the second if `found_inf` is 1.

        The numbers are tensors on the device of `like`. A rate may be one already, so that a CUDA
        graph reads it anew at each replay.
        """
        chosen = []
        for usual, otherwise in choices:
            number = usual if isinstance(usual, Tensor) else like.new_full((), usual)
            if self.found_inf is not None:
                number = number.where(self.found_inf == 0, otherwise)
            chosen.append(number)
        return chosen

    def _moment(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        moment: Tensor = state[name]
        return moment


def _trust_ratio(w: Tensor, u: Tensor) -> Tensor:
    """Return |w| / |u|, and 1 where either is 0."""
    return torch.where((w > 0) & (u > 0), w / u, 1.0)
