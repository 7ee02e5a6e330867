"""Bias, dropout, residual sum and LayerNorm in one kernel.

The backward pass keeps only the inputs and two numbers for each row; dropout is drawn again.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sqzb.model.kernels.common import dropout_factor
from sqzb.model.operators import fake, operator

# Programs of a backward pass. Each sums the gradients of the parameters over its rows in a fixed
# order. The sums are added afterwards, not by atomics, so a gradient has the same bits every time.
PARTS = 1056
WARPS = 1  # so that the sums of a row need no exchange between warps


def dropout_add_norm(
    x: Tensor,
    offset: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float,
    eps: float,
    seed: Tensor,
) -> Tensor:
    """Compute LayerNorm(dropout(x + offset) + residual) over the last dimension, in fp32.

    x, residual: (..., width).
    offset: (width), the bias of the layer that computed x.
    weight, bias: (width), LayerNorm's parameters.
    dropout: a probability below 1.
    seed: one int64 on the device of `x`; the dropped elements are a pure function of it and the
    shape.

    Returns (..., width) in the wider of the types of `x` and `residual`.
    """
    y: Tensor = _dropout_add_norm(x, offset, residual, weight, bias, dropout, eps, seed)[0]
    return y


@triton.jit
def _row(pointer, column, WIDTH: tl.constexpr):
    return tl.load(pointer + column, mask=column < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def _norm_kernel(
    x, offset, residual, weight, bias, y, statistics, seed, dropout, eps,
    DROP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    total = _row(x + row * WIDTH, column, WIDTH) + _row(offset, column, WIDTH)
    if DROP:
        total *= dropout_factor(tl.load(seed), row, column, dropout)
    total += _row(residual + row * WIDTH, column, WIDTH)
    mean = tl.sum(total, axis=0) / WIDTH
    centred = tl.where(column < WIDTH, total - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)
    out = centred * scale * _row(weight, column, WIDTH) + _row(bias, column, WIDTH)
    tl.store(y + row * WIDTH + column, out.to(y.dtype.element_ty), mask=column < WIDTH)
    tl.store(statistics + 2 * row, mean)
    tl.store(statistics + 2 * row + 1, scale)


@triton.jit(do_not_specialize=["rows"])
def _norm_gradient_kernel(
    dy, x, offset, residual, weight, statistics, dx, dresidual, sums, seed, dropout, rows,
    DROP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a part of the rows.

    sums: (parts, 3, WIDTH), the gradients of offset, weight and bias.
    """
    part, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < WIDTH
    gain, before = _row(weight, column, WIDTH), _row(offset, column, WIDTH)
    doffset, dgain = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    dbias = tl.zeros((BLOCK,), tl.float32)
    for index in range(part, rows, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        total = _row(x + row * WIDTH, column, WIDTH) + before
        mean, scale = tl.load(statistics + 2 * row), tl.load(statistics + 2 * row + 1)
        if DROP:
            factor = dropout_factor(tl.load(seed), row, column, dropout)
            total *= factor
        total += _row(residual + row * WIDTH, column, WIDTH)
        normalized = tl.where(inside, (total - mean) * scale, 0.0)
        grad = _row(dy + row * WIDTH, column, WIDTH)
        dgain += grad * normalized
        dbias += grad
        grad *= gain
        along, level = tl.sum(grad * normalized, axis=0) / WIDTH, tl.sum(grad, axis=0) / WIDTH
        dtotal = (grad - level - normalized * along) * scale
        tl.store(
            dresidual + row * WIDTH + column, dtotal.to(dresidual.dtype.element_ty), mask=inside
        )
        if DROP:
            dtotal *= factor
        tl.store(dx + row * WIDTH + column, dtotal.to(dx.dtype.element_ty), mask=inside)
        doffset += dtotal
    sums += part * (3 * WIDTH) + column
    tl.store(sums, doffset, mask=inside)
    tl.store(sums + WIDTH, dgain, mask=inside)
    tl.store(sums + 2 * WIDTH, dbias, mask=inside)


def _row_sizes(width: int, dropout: float) -> dict[str, Any]:
    return {"DROP": dropout > 0, "WIDTH": width, "BLOCK": max(16, triton.next_power_of_2(width))}


@operator("dropout_add_norm")
def _dropout_add_norm(
    x: Tensor,
    offset: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float,
    eps: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the output, and each row's mean and inverse standard deviation."""
    width = x.shape[-1]
    rows = x.numel() // width
    y = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype))
    statistics = x.new_empty(rows, 2, dtype=torch.float32)
    x, residual = x.contiguous(), residual.contiguous()
    with torch.cuda.device_of(x):
        _norm_kernel[(rows,)](
            x, offset, residual, weight, bias, y, statistics, seed, dropout, eps,
            **_row_sizes(width, dropout), num_warps=WARPS,
        )  # fmt: skip
    return y, statistics


@operator("dropout_add_norm_backward")
def _dropout_add_norm_backward(
    dy: Tensor, x: Tensor, offset: Tensor, residual: Tensor, weight: Tensor, statistics: Tensor,
    dropout: float, seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x and residual, and fp32 (3, width) of offset, weight and bias."""
    width = x.shape[-1]
    rows = x.numel() // width
    parts = min(PARTS, rows)
    dy, x, residual = dy.contiguous(), x.contiguous(), residual.contiguous()
    dx, dresidual = torch.empty_like(x), torch.empty_like(residual)
    sums = x.new_empty(parts, 3, width, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _norm_gradient_kernel[(parts,)](
            dy, x, offset, residual, weight, statistics, dx, dresidual, sums, seed, dropout, rows,
            **_row_sizes(width, dropout), num_warps=WARPS,
        )  # fmt: skip
    return dx, dresidual, sums.sum(0)


@fake(_dropout_add_norm)
def _(
    x: Tensor,
    offset: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float,
    eps: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype))
    return y, x.new_empty(x.numel() // x.shape[-1], 2, dtype=torch.float32)


@fake(_dropout_add_norm_backward)
def _(
    dy: Tensor, x: Tensor, offset: Tensor, residual: Tensor, weight: Tensor, statistics: Tensor,
    dropout: float, seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    sums = weight.new_empty(3, weight.shape[0], dtype=torch.float32)
    return x.new_empty(x.shape), residual.new_empty(residual.shape), sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, offset, residual, weight, bias, ctx.dropout, _, seed = inputs
    ctx.types = offset.dtype, weight.dtype, bias.dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, offset, residual, weight, output[1], seed)


def _gradients(ctx: Any, dy: Tensor, _: None) -> tuple[Tensor | None, ...]:
    x, offset, residual, weight, statistics, seed = ctx.saved_tensors
    dx, dresidual, sums = _dropout_add_norm_backward(
        dy, x, offset, residual, weight, statistics, ctx.dropout, seed
    )
    doffset, dweight, dbias = (part.to(kind) for part, kind in zip(sums, ctx.types, strict=True))
    return dx, doffset, dresidual, dweight, dbias, None, None, None


torch.library.register_autograd(_dropout_add_norm, _gradients, setup_context=_keep)
