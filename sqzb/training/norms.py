"""Norms of tensors with millions of elements, right to the last digits of fp32."""

import torch
from torch import Tensor

# Elements up to which one sum in fp32 is right to about 1e-7. Longer rows, which no model has, are
# added in fp64, which is slow.
LONG = 8192


def norms(tensors: list[Tensor]) -> Tensor:
    """Return the 2-norm of each tensor, (tensors), in the tensors' type and on their device.

    No number is read from the device.

    On a GPU torch adds the squares as a tree. On a CPU it adds them one after the other in fp32,
    and the norm of 30,522 x 768 elements is 0.13 % too small. So there each row has a norm of its
    own, and the squares of these are added in fp64.
    """
    if all(tensor.is_cuda for tensor in tensors):
        return torch.stack(torch._foreach_norm(tensors))
    return torch.stack([_norm(tensor) for tensor in tensors])


def clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scale the gradients down to a common norm of `most` if it is larger; return the norm before.

    The rule is that of `torch.nn.utils.clip_grad_norm_`.
    """
    norm: Tensor = torch.linalg.vector_norm(norms(gradients))
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _norm(tensor: Tensor) -> Tensor:
    rows = tensor.flatten(1) if tensor.ndim > 1 else tensor.view(-1, 1)
    if 1 < rows.shape[1] <= LONG:
        rows = torch.linalg.vector_norm(rows, dim=1)
    dtype = tensor.dtype if rows.numel() <= LONG else torch.float64
    norm: Tensor = torch.linalg.vector_norm(rows, dtype=dtype)
    return norm.to(tensor.dtype)
