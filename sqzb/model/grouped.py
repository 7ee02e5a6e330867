"""Grouped linear layers of (rows, width), as operators that torch.compile takes as they are.

Each group is read and written where it lies in its row, so nothing is copied to bring groups together or apart, and the
gradient of a weight is written once, whole. A GPU takes all groups in one product; a CPU one after the other, each
through as many layers as it can while it is in the cache.
"""

from typing import Any

import torch
from torch import Tensor


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """x W^T + b by group: (rows, groups * before) to (rows, groups * after).

    weight: (groups * after, before, 1), as of a grouped convolution with kernel size 1; bias: (groups * after).
    """
    y: Tensor = _grouped_linear(x, weight, bias, groups)
    return y


def feed_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str) -> Tensor:
    """act(x W1^T + b1) W2^T + b2 by group: (rows, groups * before) to (rows, groups * after).

    w1 (groups * middle, before, 1), b1 (groups * middle), w2 (groups * after, middle, 1), b2 (groups * after).
    activation: "gelu" (exact), "gelu_new" (tanh) or "relu".
    """
    keep = torch.is_grad_enabled()
    y: Tensor = _feed_forward(x, w1, b1, w2, b2, groups, activation, keep)[0]
    return y


def all_at_once(device: torch.device) -> bool:
    return device.type != "cpu"


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(rows, groups * width) as (groups, rows, width)."""
    return x.view(len(x), groups, -1).transpose(0, 1)


def _rows_by_group(weight: Tensor, groups: int) -> Tensor:
    """(groups * after, before, 1) as (groups, after, before)."""
    return weight.view(groups, -1, weight.shape[1])


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out[g] = a[g] @ b[g]."""
    if all_at_once(out.device):
        torch.bmm(a, b, out=out)
        return
    for left, right, product in zip(a, b, out, strict=True):
        torch.mm(left, right, out=product)


def _affine(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """out[g] = x[g] @ weight[g]^T + bias[g]."""
    if all_at_once(out.device):
        torch.baddbmm(bias[:, None], x, weight.transpose(1, 2), out=out)
        return
    for rows, matrix, added, product in zip(x, weight, bias, out, strict=True):
        torch.addmm(added, rows, matrix.t(), out=product)


def _activate(x: Tensor, activation: str, out: Tensor) -> None:
    if activation == "relu":
        torch.clamp_min(x, 0, out=out)
    else:
        torch.ops.aten.gelu.out(x, approximate="none" if activation == "gelu" else "tanh", out=out)


def _activate_backward(grad: Tensor, x: Tensor, activation: str) -> None:
    """Put the gradient of x in place of `grad`, that of what came out."""
    if activation == "relu":
        grad.mul_(x > 0)
    else:
        approximate = "none" if activation == "gelu" else "tanh"
        torch.ops.aten.gelu_backward.grad_input(grad, x, approximate=approximate, grad_input=grad)


@torch.library.custom_op("sqzb::grouped_linear", mutates_args=())
def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    out = x.new_empty(len(x), len(bias))
    _affine(_by_group(x, groups), _rows_by_group(weight, groups), bias.view(groups, -1), _by_group(out, groups))
    return out


@torch.library.custom_op("sqzb::grouped_linear_backward", mutates_args=())
def _grouped_linear_backward(grad: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    grad = grad.contiguous()
    by_x, by_weight = torch.empty_like(x), torch.empty_like(weight)
    parts = _by_group(grad, groups)
    _multiply(parts, _rows_by_group(weight, groups), _by_group(by_x, groups))
    _multiply(parts.transpose(1, 2), _by_group(x, groups), _rows_by_group(by_weight, groups))
    return by_x, by_weight, grad.sum(0)


@torch.library.custom_op("sqzb::feed_forward", mutates_args=())
def _feed_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What comes out, and beside it what comes into the activation and out of it, (groups, rows, middle): all of it
    where it is to be kept, else a place that the groups have used in turn."""
    out = x.new_empty(len(x), len(b2))
    width = len(b1) // groups
    at_once = groups if all_at_once(x.device) else 1
    middle = x.new_empty(groups if keep else at_once, len(x), width)
    activated = torch.empty_like(middle) if keep else middle
    x, y = _by_group(x, groups), _by_group(out, groups)
    w1, w2, b1, b2 = _rows_by_group(w1, groups), _rows_by_group(w2, groups), b1.view(groups, -1), b2.view(groups, -1)
    for start in range(0, groups, at_once):
        these = slice(start, start + at_once)
        place = these if keep else slice(0, at_once)
        _affine(x[these], w1[these], b1[these], middle[place])
        _activate(middle[place], activation, activated[place])
        _affine(activated[place], w2[these], b2[these], y[these])
    if keep:
        return out, middle, activated
    return out, x.new_empty(0), x.new_empty(0)


@torch.library.custom_op("sqzb::feed_forward_backward", mutates_args=())
def _feed_forward_backward(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, middle: Tensor, activated: Tensor, groups: int, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad = grad.contiguous()
    at_once = groups if all_at_once(x.device) else 1
    by_x, by_w1, by_w2 = torch.empty_like(x), torch.empty_like(w1), torch.empty_like(w2)
    by_b1 = w1.new_empty(groups, middle.shape[2])
    out, parts, into = _by_group(grad, groups), _by_group(x, groups), _by_group(by_x, groups)
    g1, g2 = _rows_by_group(by_w1, groups), _rows_by_group(by_w2, groups)
    w1, w2 = _rows_by_group(w1, groups), _rows_by_group(w2, groups)
    by_middle = x.new_empty(at_once, *middle.shape[1:])
    for start in range(0, groups, at_once):
        these = slice(start, start + at_once)
        _multiply(out[these].transpose(1, 2), activated[these], g2[these])
        _multiply(out[these], w2[these], by_middle)
        _activate_backward(by_middle, middle[these], activation)
        torch.sum(by_middle, 1, out=by_b1[these])
        _multiply(by_middle.transpose(1, 2), parts[these], g1[these])
        _multiply(by_middle, w1[these], into[these])
    return by_x, by_w1, by_b1.view(-1), by_w2, grad.sum(0)


# What torch asks of an operator: shapes without numbers, gradients, and the type that autocast gives it.


@_grouped_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return x.new_empty(x.shape[0], bias.shape[0])


@_grouped_linear_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])


@_feed_forward.register_fake
def _(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    kept = (groups, x.shape[0], b1.shape[0] // groups) if keep else (0,)
    return x.new_empty(x.shape[0], b2.shape[0]), x.new_empty(kept), x.new_empty(kept)


@_feed_forward_backward.register_fake
def _(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, middle: Tensor, activated: Tensor, groups: int, activation: str
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
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, w1, w2, *output[1:])


def _feed_forward_gradients(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return *_feed_forward_backward(grad, *ctx.saved_tensors, ctx.groups, ctx.activation), None, None, None


_grouped_linear.register_autograd(_linear_gradients, setup_context=_keep_linear)
_feed_forward.register_autograd(_feed_forward_gradients, setup_context=_keep_feed_forward)
for _device in ("cpu", "cuda"):
    _grouped_linear.register_autocast(_device, torch.bfloat16)
    _feed_forward.register_autocast(_device, torch.bfloat16)
