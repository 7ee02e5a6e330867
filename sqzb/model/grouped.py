"""Grouped linear layers on (rows, width), as operators that torch.compile does not trace into.

All groups are one batched matrix product, which reads and writes each group in its columns of the
rows, so that no copy is made to separate or join the groups.
"""

from typing import Any

import torch
from torch import Tensor

from sqzb.model.operators import fake, operator


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Compute x W^T + b by group: (rows, groups * before) to (rows, groups * after).

    weight: (groups * after, before, 1), as of a grouped convolution with kernel size 1.
    bias: (groups * after).
    """
    y: Tensor = _grouped_linear(x, weight, bias, groups)
    return y


def feed_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str
) -> Tensor:
    """Compute act(x W1^T + b1) W2^T + b2 by group.

    x: (rows, groups * before); the result is (rows, groups * after).
    w1: (groups * middle, before, 1).
    b1: (groups * middle).
    w2: (groups * after, middle, 1).
    b2: (groups * after).
    activation: "gelu" (exact), "gelu_new" (tanh) or "relu".
    """
    keep = torch.is_grad_enabled()
    y: Tensor = _feed_forward(x, w1, b1, w2, b2, groups, activation, keep)[0]
    return y


def in_autocast(x: Tensor) -> Tensor:
    """Return `x` in the type of products under autocast; unchanged if autocast is off."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def by_group(x: Tensor, groups: int) -> Tensor:
    """View (rows, groups * width) as (groups, rows, width)."""
    return x.view(len(x), groups, -1).transpose(0, 1)


def _rows_by_group(weight: Tensor, groups: int) -> Tensor:
    """View (groups * after, before, 1) as (groups, after, before)."""
    return weight.view(groups, -1, weight.shape[1])


def _affine(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Compute out[g] = x[g] @ weight[g]^T + bias[g]."""
    return torch.baddbmm(bias.view(len(x), 1, -1), x, weight.transpose(1, 2), out=out)


def _activate(x: Tensor, activation: str, out: Tensor) -> None:
    if activation == "relu":
        torch.clamp_min(x, 0, out=out)
    else:
        torch.ops.aten.gelu.out(x, approximate="none" if activation == "gelu" else "tanh", out=out)


def _activate_backward(grad: Tensor, x: Tensor, activation: str) -> None:
    """Turn `grad`, the gradient of the activation's output, into that of its input x, in place."""
    if activation == "relu":
        grad.mul_(x > 0)
    else:
        approximate = "none" if activation == "gelu" else "tanh"
        torch.ops.aten.gelu_backward.grad_input(grad, x, approximate=approximate, grad_input=grad)


@operator("grouped_linear")
def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    out = x.new_empty(len(x), len(bias))
    _affine(by_group(x, groups), _rows_by_group(weight, groups), bias, by_group(out, groups))
    return out


@operator("grouped_linear_backward")
def _grouped_linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad = grad.contiguous()
    by_x, by_weight = torch.empty_like(x), torch.empty_like(weight)
    parts = by_group(grad, groups)
    torch.bmm(parts, _rows_by_group(weight, groups), out=by_group(by_x, groups))
    torch.bmm(parts.transpose(1, 2), by_group(x, groups), out=_rows_by_group(by_weight, groups))
    return by_x, by_weight, grad.sum(0)


@operator("feed_forward")
def _feed_forward(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    groups: int,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output, and with `keep` also the activation's input, (groups, rows, middle)."""
    out = x.new_empty(len(x), len(b2))
    middle = x.new_empty(groups, len(x), len(b1) // groups)
    activated = torch.empty_like(middle) if keep else middle
    _affine(by_group(x, groups), _rows_by_group(w1, groups), b1, middle)
    _activate(middle, activation, activated)
    _affine(activated, _rows_by_group(w2, groups), b2, by_group(out, groups))
    return out, middle if keep else x.new_empty(0)


@operator("feed_forward_backward")
def _feed_forward_backward(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, middle: Tensor, groups: int, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad = grad.contiguous()
    by_x, by_w1, by_w2 = torch.empty_like(x), torch.empty_like(w1), torch.empty_like(w2)
    parts = by_group(grad, groups)
    by_middle = torch.empty_like(middle)
    _activate(middle, activation, by_middle)
    torch.bmm(parts.transpose(1, 2), by_middle, out=_rows_by_group(by_w2, groups))
    torch.bmm(parts, _rows_by_group(w2, groups), out=by_middle)
    _activate_backward(by_middle, middle, activation)
    torch.bmm(by_middle.transpose(1, 2), by_group(x, groups), out=_rows_by_group(by_w1, groups))
    torch.bmm(by_middle, _rows_by_group(w1, groups), out=by_group(by_x, groups))
    return by_x, by_w1, by_middle.sum(1).view(-1), by_w2, grad.sum(0)


# Registrations that torch needs of an operator: result shapes, gradients, and its autocast type.


@fake(_grouped_linear)
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return x.new_empty(x.shape[0], bias.shape[0])


@fake(_grouped_linear_backward)
def _(grad: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])


@fake(_feed_forward)
def _(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    groups: int,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    kept = (groups, x.shape[0], b1.shape[0] // groups) if keep else (0,)
    return x.new_empty(x.shape[0], b2.shape[0]), x.new_empty(kept)


@fake(_feed_forward_backward)
def _(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, middle: Tensor, groups: int, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    biases = w1.new_empty(w1.shape[0]), w2.new_empty(w2.shape[0])
    return torch.empty_like(x), torch.empty_like(w1), biases[0], torch.empty_like(w2), biases[1]


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.groups = inputs
    ctx.save_for_backward(x, weight)


def _linear_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_grouped_linear_backward(grad, *ctx.saved_tensors, ctx.groups), None


def _keep_feed_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, w1, _, w2, _, ctx.groups, ctx.activation, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, w1, w2, output[1])


def _feed_forward_gradients(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return (
        *_feed_forward_backward(grad, *ctx.saved_tensors, ctx.groups, ctx.activation),
        None,
        None,
        None,
    )


torch.library.register_autograd(_grouped_linear, _linear_gradients, setup_context=_keep_linear)
torch.library.register_autograd(
    _feed_forward, _feed_forward_gradients, setup_context=_keep_feed_forward
)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast(_grouped_linear, _device, torch.bfloat16)
    torch.library.register_autocast(_feed_forward, _device, torch.bfloat16)
