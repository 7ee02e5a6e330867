"""A linear layer onto very many classes, and its loss without all logits in memory."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sqzb.model.grouped import in_autocast
from sqzb.model.operators import fake, operator

# Logits that are computed at once: 128 MiB in fp32.
AT_ONCE = 2**25
# A GPU's fast products need rows of logits aligned to 16 bytes; 64 columns also fill its tiles.
ALIGNED = 64


def aligned_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute F.linear, with the outputs padded to a number for which a GPU is fast."""
    missing = -len(bias) % ALIGNED
    if not missing:
        return F.linear(x, weight, bias)
    return F.linear(x, F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing)))[
        ..., : len(bias)
    ]


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignored: int
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy in nats of x W^T + b against `labels`, and the hits.

    The gradients are computed with the loss, from the same logits, and kept for the backward pass.
    So the product with W^T is not computed twice. Logits have the type of `x`, or autocast's, and
    softmax and sums are fp32.

    x: (rows, width).
    weight: (classes, width).
    bias: (classes).
    labels: (rows); rows with the label `ignored` do not count.
    """
    keep = torch.is_grad_enabled()
    loss, correct, *_ = _linear_cross_entropy(in_autocast(x), weight, bias, labels, ignored, keep)
    return loss, correct


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Return the type of softmax and sums for logits of a type."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _aligned(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with classes that never occur behind them, so that a GPU is fast."""
    missing = -len(bias) % ALIGNED if weight.is_cuda else 0
    if not missing:
        return weight, bias
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=-torch.inf)


@operator("linear_cross_entropy")
def _linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignored: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, hits, and with `keep` the loss's gradients of x, weight and bias."""
    exact = _exact(x.dtype)
    matrix, offset = _aligned(weight.to(x.dtype), bias.to(x.dtype))
    loss = x.new_zeros((), dtype=exact)
    correct = x.new_zeros((), dtype=torch.int64)
    by_x = torch.empty_like(x) if keep else x.new_empty(0)
    by_weight = torch.zeros_like(matrix, dtype=exact) if keep else x.new_empty(0)
    by_bias = torch.zeros_like(offset, dtype=exact) if keep else x.new_empty(0)

    step = max(1, AT_ONCE // len(matrix))
    for start in range(0, len(x), step):
        part, of_part = x[start : start + step], labels[start : start + step]
        logits = F.linear(part, matrix, offset).to(exact)
        counted = of_part != ignored
        target = of_part.clamp(min=0)[:, None]
        correct += (logits.argmax(-1) == of_part).sum()
        total = logits.logsumexp(-1, keepdim=True)
        loss += ((total - logits.gather(1, target)).squeeze(1) * counted).sum()
        if not keep:
            continue

        # The gradient of the logits is softmax, less 1 at the label; it takes their place.
        gradient = logits.sub_(total).exp_().mul_(counted[:, None])
        gradient.scatter_add_(1, target, -counted[:, None].to(exact))
        by_bias += gradient.sum(0)
        gradient = gradient.to(x.dtype)
        by_x[start : start + step] = gradient @ matrix
        by_weight += gradient.T @ part
    if keep:
        by_weight = by_weight[: len(weight)].to(weight.dtype)
        by_bias = by_bias[: len(bias)].to(bias.dtype)
    return loss, correct, by_x, by_weight, by_bias


@fake(_linear_cross_entropy)
def _(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignored: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss, correct = x.new_empty((), dtype=_exact(x.dtype)), x.new_empty((), dtype=torch.int64)
    if keep:
        return loss, correct, torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    return loss, correct, x.new_empty(0), x.new_empty(0), x.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[2:])


def _gradients(ctx: Any, by_loss: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    factor = by_loss.to(_exact(weight.dtype))
    return (x * factor).to(x.dtype), weight * factor, bias * factor, None, None, None


torch.library.register_autograd(_linear_cross_entropy, _gradients, setup_context=_keep)
