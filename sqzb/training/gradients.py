"""All gradients of a model in one tensor, so that each operation on them is one launch."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ALIGNED = 64  # elements to which the start of each gradient is aligned, for fast reads


class FlatGradients:
    """The gradients of a model's parameters as views of one tensor.

    Make it once the parameters have gradients. A parameter without a gradient keeps none, so that
    the optimizer does not update it. A backward pass adds to the views in place, so their memory
    stays.
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
        """Scale the gradients down to a norm of `most` if it is larger.

        Returns the norm before, on the device.
        """
        assert all(parameter.grad is None for parameter in self._without), (
            "a gradient has come late"
        )
        norm: Tensor = torch.linalg.vector_norm(self._flat)
        self._flat.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def zero_where(self, condition: Tensor) -> None:
        """Set all gradients to 0 if `condition`, one bool on the device, is true."""
        self._flat.masked_fill_(condition, 0.0)

    def zero(self) -> None:
        """Set all gradients to 0."""
        self._flat.zero_()
