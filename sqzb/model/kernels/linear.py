"""Grouped products and the feed-forward block, without copies that separate or join groups.

The layers of SqueezeBERT are bound by memory. All groups are one strided product of cuBLAS; bias
and activation are one kernel; and the gradients of weights, which are small sums over very many
rows, are split over the rows, so that the whole GPU has work.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sqzb.model.grouped import by_group, in_autocast
from sqzb.model.kernels.common import dot
from sqzb.model.operators import fake, operator


def grouped_product(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Compute x W^T by group: (rows, groups * before) to (rows, groups * after).

    weight: (groups * after, before, 1), as in `GroupedLinear`.
    bias: (groups * after). It is not added here, but by the function that reads the result; its
    gradient, a sum over the rows, is computed here, because the backward pass reads the rows
    anyway.

    The result has the type of `x`, or autocast's. The weight is rounded to that type, and sums are
    fp32. Weight and bias get gradients of their own type.
    """
    y: Tensor = _grouped_product(in_autocast(x), weight, bias, groups)
    return y


def fused_feed_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, groups: int, activation: str
) -> Tensor:
    """Compute act(x W1^T + b1) W2^T by group: (rows, groups * before) to (rows, groups * after).

    w1: (groups * middle, before, 1).
    b1: (groups * middle).
    w2: (groups * after, middle, 1).
    activation: "gelu" (exact), "gelu_new" (tanh) or "relu".

    Types are as in `grouped_product`. For a backward pass, the activation's input without b1 and
    its output are kept.
    """
    y: Tensor = _feed_forward(
        in_autocast(x), w1, b1, w2, groups, activation, torch.is_grad_enabled()
    )[0]
    return y


# --- Products -------------------------------------------------------------------------------------


def _product(x: Tensor, weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """Compute x W^T by group, or x W if `transposed`; x (rows, groups * before) is contiguous."""
    parts = weight.to(x.dtype).view(groups, -1, weight.shape[1])
    parts = parts if transposed else parts.transpose(1, 2)
    y = x.new_empty(len(x), groups * parts.shape[2])
    torch.bmm(by_group(x, groups), parts, out=by_group(y, groups))
    return y


# --- Activation -----------------------------------------------------------------------------------

ACTIVATION_TILE = {"R_TILE": 4, "N_TILE": 512, "num_warps": 4}


@triton.jit
def _normal_cdf(h):
    return 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))


@triton.jit
def _tanh_cdf(h):
    """Compute 0.5 * (1 + tanh(sqrt(2 / pi) * (h + 0.044715 * h^3))) in its logistic form."""
    return tl.sigmoid(1.5957691216057308 * (h + 0.044715 * h * h * h))


@triton.jit
def _tail(h):
    """Approximate max(|h|, 1) * P(normal > |h|) to within 1e-6, by a fit of its log2."""
    h = tl.abs(h)
    power = (
        h
        * (
            h * (h * (h * (0.0072824741 - 0.00050027674 * h) - 0.052343424) - 0.45941395)
            - 1.1510521
        )
        - 1.0000019
    )
    return tl.exp2(power)


@triton.jit
def _activate(h, ACTIVATION: tl.constexpr, HALF: tl.constexpr):
    """Compute the activation.

    HALF: the result has 16 bits, so that a fit suffices for gelu; with erf the kernel would be
    bound by arithmetic, not by memory.
    """
    if ACTIVATION == "gelu" and HALF:
        return tl.maximum(h, 0.0) - tl.abs(h) * _tail(h)
    elif ACTIVATION == "gelu":
        return h * _normal_cdf(h)
    elif ACTIVATION == "gelu_new":
        return h * _tanh_cdf(h)
    else:
        return tl.maximum(h, 0.0)


@triton.jit
def _slope(h, ACTIVATION: tl.constexpr, HALF: tl.constexpr):
    """Compute the derivative of the activation."""
    if ACTIVATION == "gelu" and HALF:
        tail = _tail(h)
        return tl.where(h > 0.0, 1.0 - tail, tail) + h * 0.3989422804014327 * tl.exp2(
            -0.7213475204444817 * h * h
        )
    elif ACTIVATION == "gelu":
        return _normal_cdf(h) + h * 0.3989422804014327 * tl.exp(-0.5 * h * h)
    elif ACTIVATION == "gelu_new":
        cdf = _tanh_cdf(h)
        return cdf + h * cdf * (1.0 - cdf) * 1.5957691216057308 * (1.0 + 0.134145 * h * h)
    else:
        return tl.where(h > 0.0, 1.0, 0.0)


@triton.jit(do_not_specialize=["rows"])
def _activation_kernel(
    h, bias, by, out, rows, N: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    R_TILE: tl.constexpr, N_TILE: tl.constexpr,
):  # fmt: skip
    """Compute out = act(h + bias), or with SLOPE by * act'(h + bias); all (rows, N)."""
    r = tl.program_id(0).to(tl.int64) * R_TILE + tl.arange(0, R_TILE)
    n = tl.program_id(1) * N_TILE + tl.arange(0, N_TILE)
    place, inside = r[:, None] * N + n[None, :], (r < rows)[:, None] & (n < N)[None, :]
    value = tl.load(h + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    HALF: tl.constexpr = out.dtype.element_ty.primitive_bitwidth == 16
    if SLOPE:
        value = tl.load(by + place, mask=inside, other=0.0).to(tl.float32) * _slope(
            value, ACTIVATION, HALF
        )
    else:
        value = _activate(value, ACTIVATION, HALF)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def _activation(
    h: Tensor, bias: Tensor, activation: str, out: Tensor, by: Tensor | None = None
) -> Tensor:
    """Compute act(h + bias), or by * act'(h + bias), into `out`, which may be h or `by`."""
    rows, width = h.shape
    sizes: dict[str, Any] = {
        "N": width,
        "ACTIVATION": activation,
        "SLOPE": by is not None,
        **ACTIVATION_TILE,
    }
    grid = (triton.cdiv(rows, sizes["R_TILE"]), triton.cdiv(width, sizes["N_TILE"]))
    with torch.cuda.device_of(h):
        _activation_kernel[grid](h, bias, h if by is None else by, out, rows, **sizes)
    return out


# --- Gradients of weights -------------------------------------------------------------------------
#
# Names: r rows, k columns of a group of x, n columns of a group of dy; G groups of K and N columns.
# Triton's tiles are powers of two, and 192 is not. So a width is covered by pairs of tiles, 192 by
# (128, 64); the pair (n, 0) is a single tile.


class WeightTiles(NamedTuple):
    """The work of a program that computes a part of dW.

    after: rows of dW, as a pair of tiles.
    before: columns of dW, as a pair of tiles.
    step: rows of x in a step.
    programs: programs that run at once, at most; the rows of x are split among them.
    """

    after: tuple[int, int]
    before: tuple[int, int]
    step: int
    programs: int
    warps: int
    stages: int


def _power(width: int, most: int = 128) -> int:
    """Return the smallest power of two from `width` on, within 16 (for tensor cores) and `most`."""
    return int(min(max(16, triton.next_power_of_2(width)), most))


def _pair(width: int) -> tuple[int, int]:
    """Return the pair of tiles that covers a width."""
    return (128, 64) if width % 192 == 0 else (_power(width), 0)


def weight_tiles(before: int, after: int, element_size: int) -> WeightTiles:
    """Return the tiles for groups `before` wide in x and `after` wide in y.

    The number of programs is that of an H100, which has 132 multiprocessors.
    """
    if element_size > 2:
        columns = (_power(after, 64), 0), (_power(before, 64), 0)
        return WeightTiles(*columns, step=32, programs=264, warps=4, stages=2)
    return WeightTiles(_pair(after), _pair(before), step=64, programs=132, warps=8, stages=4)


@triton.jit
def _load(place, row, column, rows, columns, FIT: tl.constexpr):
    """Load a tile, zero outside of its matrix.

    FIT: no column is outside, which saves the registers of a mask.
    """
    if FIT:
        return tl.load(place, mask=(row < rows)[:, None], other=0.0)
    else:
        return tl.load(place, mask=(row < rows)[:, None] & (column < columns)[None, :], other=0.0)


@triton.jit
def _store(pointer, tile, row, column, rows, columns, stride, FIT: tl.constexpr):
    place, mask = pointer + row[:, None] * stride + column[None, :], (row < rows)[:, None]
    if not FIT:
        mask &= (column < columns)[None, :]
    tl.store(place, tile.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _weight_tile(
    dy, x, dweight, dbias, first_n, first_k, rows,
    G: tl.constexpr, K: tl.constexpr, N: tl.constexpr, BIAS: tl.constexpr,
    R_TILE: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr,
):  # fmt: skip
    N_FIT: tl.constexpr = N % (N0 + N1) == 0
    K_FIT: tl.constexpr = K % (K0 + K1) == 0
    r, n0, k0 = tl.arange(0, R_TILE), first_n + tl.arange(0, N0), first_k + tl.arange(0, K0)
    dw00 = tl.zeros((N0, K0), tl.float32)
    # The sum over rows is a product with ones, so that dy is loaded and laid out once, as for dW.
    ones = tl.full((R_TILE, 16), 1.0, tl.float32).to(x.dtype.element_ty)
    if BIAS:
        db0 = tl.zeros((N0, 16), tl.float32)
    if N1 > 0:
        n1, dw10 = first_n + N0 + tl.arange(0, N1), tl.zeros((N1, K0), tl.float32)
        if BIAS:
            db1 = tl.zeros((N1, 16), tl.float32)
    if K1 > 0:
        k1, dw01 = first_k + K0 + tl.arange(0, K1), tl.zeros((N0, K1), tl.float32)
    if N1 > 0 and K1 > 0:
        dw11 = tl.zeros((N1, K1), tl.float32)
    for index in range(tl.program_id(1), tl.cdiv(rows, R_TILE), tl.num_programs(1)):
        start = tl.cast(index, tl.int64) * R_TILE
        left = (rows - start).to(tl.int32)
        dy_row, x_row = (
            dy + start * (G * N) + r[:, None] * (G * N),
            x + start * (G * K) + r[:, None] * (G * K),
        )
        dy0 = tl.trans(_load(dy_row + n0[None, :], r, n0, left, N, N_FIT))
        x0 = _load(x_row + k0[None, :], r, k0, left, K, K_FIT)
        dw00 = dot(dy0, x0, dw00)
        if BIAS:
            db0 = dot(dy0, ones, db0)
        if K1 > 0:
            x1 = _load(x_row + k1[None, :], r, k1, left, K, K_FIT)
            dw01 = dot(dy0, x1, dw01)
        if N1 > 0:
            dy1 = tl.trans(_load(dy_row + n1[None, :], r, n1, left, N, N_FIT))
            dw10 = dot(dy1, x0, dw10)
            if BIAS:
                db1 = dot(dy1, ones, db1)
            if K1 > 0:
                dw11 = dot(dy1, x1, dw11)
    _store(dweight, dw00, n0, k0, N, K, K, K_FIT)
    if BIAS:
        tl.store(dbias + n0, tl.max(db0, axis=1), mask=n0 < N)
    if K1 > 0:
        _store(dweight, dw01, n0, k1, N, K, K, K_FIT)
    if N1 > 0:
        _store(dweight, dw10, n1, k0, N, K, K, K_FIT)
        if BIAS:
            tl.store(dbias + n1, tl.max(db1, axis=1), mask=n1 < N)
        if K1 > 0:
            _store(dweight, dw11, n1, k1, N, K, K, K_FIT)


@triton.jit(do_not_specialize=["rows"])
def _weight_gradient_kernel(
    dy, x, dweight, dbias, rows,
    G: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
    R_TILE: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr,
):  # fmt: skip
    """Compute partial gradients of weight and bias by group, summed over the rows of a part.

    dweight[part, n, k] = sum_r dy[r, n] x[r, k] and dbias[part, n] = sum_r dy[r, n].
    """
    K_TILES: tl.constexpr = (K + K0 + K1 - 1) // (K0 + K1)
    N_TILES: tl.constexpr = (N + N0 + N1 - 1) // (N0 + N1)
    program = tl.program_id(0)
    k_tile, n_tile, group = (
        program % K_TILES,
        program // K_TILES % N_TILES,
        program // (K_TILES * N_TILES),
    )
    dy, x, index = dy + group * N, x + group * K, tl.program_id(1).to(tl.int64) * G + group
    dweight, dbias = dweight + index * (N * K), dbias + index * N
    first_n, first_k = n_tile * (N0 + N1), k_tile * (K0 + K1)
    if K_TILES == 1 or k_tile == 0:
        _weight_tile(
            dy, x, dweight, dbias, first_n, first_k, rows, G, K, N, True, R_TILE, N0, N1, K0, K1
        )
    else:
        _weight_tile(
            dy, x, dweight, dbias, first_n, first_k, rows, G, K, N, False, R_TILE, N0, N1, K0, K1
        )


def _weight_constants(before: int, after: int, groups: int, tiles: WeightTiles) -> dict[str, Any]:
    sizes = {"G": groups, "K": before, "N": after, "R_TILE": tiles.step}
    sizes["N0"], sizes["N1"] = tiles.after
    sizes["K0"], sizes["K1"] = tiles.before
    return sizes


def _weight_gradients(dy: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return dW in the type of `weight` and db in fp32.

    dy: (rows, groups * after).
    x: (rows, groups * before).
    """
    before, after = weight.shape[1], len(weight) // groups
    tiles = weight_tiles(before, after, x.element_size())
    programs = (
        triton.cdiv(after, sum(tiles.after)) * triton.cdiv(before, sum(tiles.before)) * groups
    )
    parts = max(1, min(tiles.programs // programs, triton.cdiv(len(x), tiles.step)))
    # The parts are summed afterwards, not by atomics, so a gradient has the same bits in every run.
    dweight = x.new_empty(parts, *weight.shape, dtype=torch.float32)
    dbias = x.new_empty(parts, len(weight), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _weight_gradient_kernel[programs, parts](
            dy, x, dweight, dbias, len(x), **_weight_constants(before, after, groups, tiles),
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return dweight.sum(0).to(weight.dtype), dbias.sum(0)


# --- Operators ------------------------------------------------------------------------------------


@operator("grouped_product")
def _grouped_product(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return _product(x.contiguous(), weight, groups, transposed=False)


@operator("grouped_product_backward")
def _grouped_product_backward(
    dy: Tensor, x: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and weight, and that of bias in fp32."""
    dy = dy.contiguous()
    return _product(dy, weight, groups, transposed=True), *_weight_gradients(
        dy, x.contiguous(), weight, groups
    )


@operator("feed_forward_kernel")
def _feed_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, groups: int, activation: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, and with `keep` the activation's input and output.

    These two are (rows, groups * middle).
    """
    h = _product(x.contiguous(), w1, groups, transposed=False)
    a = _activation(h, b1, activation, torch.empty_like(h) if keep else h)
    y = _product(a, w2, groups, transposed=False)
    return (y, h, a) if keep else (y, x.new_empty(0), x.new_empty(0))


@operator("feed_forward_kernel_backward")
def _feed_forward_backward(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    h: Tensor,
    a: Tensor,
    groups: int,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, w1, b1 (in fp32) and w2."""
    dy = dy.contiguous()
    dw2, _ = _weight_gradients(dy, a, w2, groups)
    da = _product(dy, w2, groups, transposed=True)
    dh = _activation(h, b1, activation, da, by=da)
    dw1, db1 = _weight_gradients(dh, x.contiguous(), w1, groups)
    return _product(dh, w1, groups, transposed=True), dw1, db1, dw2


@fake(_grouped_product)
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@fake(_grouped_product_backward)
def _(dy: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0], dtype=torch.float32),
    )


@fake(_feed_forward)
def _(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, groups: int, activation: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    kept = (x.shape[0], w1.shape[0]) if keep else (0,)
    return x.new_empty(x.shape[0], w2.shape[0]), x.new_empty(kept), x.new_empty(kept)


@fake(_feed_forward_backward)
def _(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    h: Tensor,
    a: Tensor,
    groups: int,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_b1 = w1.new_empty(w1.shape[0], dtype=torch.float32)
    return x.new_empty(x.shape), w1.new_empty(w1.shape), by_b1, w2.new_empty(w2.shape)


def _keep_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.groups = inputs
    ctx.bias_type = bias.dtype
    ctx.save_for_backward(x, weight)


def _product_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    dx, dweight, dbias = _grouped_product_backward(dy, *ctx.saved_tensors, ctx.groups)
    return dx, dweight, dbias.to(ctx.bias_type), None


def _keep_feed_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, w1, b1, w2, ctx.groups, ctx.activation, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, w1, b1, w2, *output[1:])


def _feed_forward_gradients(ctx: Any, dy: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    dx, dw1, db1, dw2 = _feed_forward_backward(dy, *ctx.saved_tensors, ctx.groups, ctx.activation)
    return dx, dw1, db1.to(ctx.saved_tensors[2].dtype), dw2, None, None, None


torch.library.register_autograd(_grouped_product, _product_gradients, setup_context=_keep_product)
torch.library.register_autograd(
    _feed_forward, _feed_forward_gradients, setup_context=_keep_feed_forward
)
