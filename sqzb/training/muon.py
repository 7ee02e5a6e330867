"""The Muon optimizer for matrices, beside AdamW for all other parameters."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

MOMENT = "momentum_buffer"
# The polynomial of Newton and Schulz in its author's tuned form, as torch.optim.Muon has it: its
# slope at 0 is as high as possible, so singular values end between about 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
LEAST_NORM = 1e-7


class Muon(Optimizer):
    """Muon (Jordan et al. 2024) for some groups, and AdamW for the rest, as one optimizer.

    The rule is that of `torch.optim.Muon`: Nesterov momentum, made orthogonal, times
    sqrt(max(1, rows / columns)), with decoupled weight decay. torch's class takes one matrix at a
    time, knows no grouped weights, and cannot leave out an update without reading a number from
    the device. Here all matrices of a shape are one batch of products.

    matrices: parameter groups. All weights of a group have one shape, (rows, columns, 1) or (rows,
    columns), and consist of `blocks` matrices of equally many rows.
    rest: the optimizer of the other parameters, whose groups and state become a part of this one's.

    As in Lamb, where the attribute `found_inf` is 1, weights and moments do not change. All
    gradients must be 0 then.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, matrices: Iterable[dict[str, Any]], rest: AdamW, lr: float, momentum: float
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "blocks": 1})
        self._matrices = list(self.param_groups)
        self._rest = rest
        # Both optimizers see the same groups and the same state, which checkpoints load and save.
        self.param_groups += rest.param_groups
        rest.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self._matrices:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        self._rest.found_inf = self.found_inf  # type: ignore[attr-defined]
        self._rest.step()
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        like = parameters[0]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        moments = [self._moment(parameter) for parameter in parameters]
        # An update that must not happen has a rate of 0, and a moment that takes nothing from the
        # gradient: a branch would have to read `found_inf` from the device.
        lr, new = self._unless_inf(like, group["lr"], 1 - group["momentum"])
        for moment, gradient in zip(moments, gradients, strict=True):
            moment.lerp_(gradient, new)
        updates = torch._foreach_lerp(gradients, moments, group["momentum"])

        rows, columns = like.shape[0] // group["blocks"], like.shape[1]
        stacked = torch.stack(updates).view(-1, rows, columns)
        directions = orthogonal(stacked).mul_(lr * math.sqrt(max(1, rows / columns)))
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_sub_(parameters, list(directions.reshape(len(parameters), *like.shape)))

    def _unless_inf(self, like: Tensor, *numbers: float | Tensor) -> list[Tensor]:
        """Return the numbers as tensors on the device of `like`; as 0 if `found_inf` is 1."""
        # A CUDA graph has the rate on the device already.
        chosen = [
            number if isinstance(number, Tensor) else like.new_full((), number)
            for number in numbers
        ]
        if self.found_inf is None:
            return chosen
        return [number.where(self.found_inf == 0, 0.0) for number in chosen]

    def _moment(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if MOMENT not in state:
            state[MOMENT] = torch.zeros_like(parameter)
        moment: Tensor = state[MOMENT]
        return moment


def orthogonal(matrices: Tensor) -> Tensor:
    """Return for each matrix U S V^T, (n, rows, columns), about U V^T, by Newton and Schulz.

    On a GPU the products are in bf16, as in `torch.optim.Muon`. On a CPU, few of which have fast
    products in bf16, they are in the matrices' own type.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    if is_tall:
        x = x.mT
    return x.to(matrices.dtype)
