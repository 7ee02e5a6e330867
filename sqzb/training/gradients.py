"""All gradients of a model in one tensor, so that each operation on them is one launch."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ALIGNED = 64  # numbers: each gradient begins where a GPU reads fastest


class FlatGradients:
    """The gradients of a model's parameters as parts of one tensor.

    Made once the parameters have gradients: a parameter without one keeps none, which an optimizer
    leaves alone. A backward pass adds to the parts in place, so the memory stays where it is.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        everything = list(parameters)
        self._without = [parameter for parameter in everything if parameter.grad is None]
        parts = [parameter for parameter in everything if parameter.grad is not None]
        starts, end = [], 0
        for parameter in parts:
            starts.append(end)
            end += -(-parameter.numel() // ALIGNED) * ALIGNED
        self._flat = torch.zeros(end, dtype=parts[0].dtype, device=parts[0].device)
        for parameter, start in zip(parts, starts, strict=True):
            part = self._flat[start : start + parameter.numel()].view_as(parameter)
            part.copy_(parameter.grad)  # type: ignore[arg-type]
            parameter.grad = part

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to a norm of `most`, where it is larger; the norm, on the device."""
        assert all(parameter.grad is None for parameter in self._without), (
            "a gradient has come late"
        )
        norm: Tensor = torch.linalg.vector_norm(self._flat)
        self._flat.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def zero_where(self, condition: Tensor) -> None:
        """Make all gradients 0 if the one truth value on the device holds."""
        self._flat.masked_fill_(condition, 0.0)

    def zero(self) -> None:
        self._flat.zero_()
