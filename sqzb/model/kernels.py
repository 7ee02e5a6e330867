"""Triton kernels for the two parts of an encoder layer that are bound by memory: feed-forward, dropout-add-norm.

What they save, by arithmetic and not measured, per token of one layer of the published model (768 wide, middle 3072
wide, bf16 activations and fp32 residuals under autocast, against one kernel an operation with gelu fused into one):
- the middle, 6,144 bytes, is written or read 4 times forward and 7 times backward, and its two kept copies are
  12,288 bytes until then; in `grouped_ffn` it never leaves the chip. The price is recomputation: 9 products instead
  of 6, each of 1.2 MFLOP a token;
- dropout, sum and LayerNorm move 23 bytes an element forward and 31 backward; `dropout_add_norm` moves 10 and 16,
  which is 21,504 bytes a token less, twice a layer.

A kernel runs on a CUDA device, or on the CPU in Triton's interpreter if TRITON_INTERPRET=1 is set before this module
is imported. Both functions are custom operators, which torch.compile takes as they are.
"""

# Triton has no type stubs, and the arguments of a kernel are pointers and tiles of its own language.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# A program holds the rows of one group whole, on the chip.
MAX_GROUP_WIDTH = 256
# Parts that a sum over the rows is cut into. Each part is summed in a fixed order by one program and the parts are
# added after, not with atomics, so a gradient has the same bits in every run.
WEIGHT_PARTS = 8
NORM_PARTS = 1024
WARPS = 8

_interpreted = tl.constexpr(triton.knobs.runtime.interpret)


def grouped_ffn(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str) -> Tensor:
    """Two grouped linear layers with an activation between, group by group: act(x W1^T + b1) W2^T + b2.

    `x` is (..., groups * before); `w1` (groups * middle, before, 1) and `b1` (groups * middle); `w2`
    (groups * after, middle, 1) and `b2` (groups * after), as in `GroupedLinear`. Returns (..., groups * after) in the
    type of `x`, or of autocast where that is on. The weights are rounded to that type too, sums and activation are
    fp32; weights get gradients of their own type. `activation` is "gelu" (exact), "gelu_new" (tanh) or "relu".

    Raises ValueError if a group is wider than MAX_GROUP_WIDTH before or after.
    """
    before, after = w1.shape[1], w2.shape[0] // groups
    if max(before, after) > MAX_GROUP_WIDTH:
        raise ValueError(f"a group is {before} wide before and {after} after; at most {MAX_GROUP_WIDTH} fit")
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    y: Tensor = _grouped_ffn(x, w1, b1, w2, b2, groups, activation)
    return y


def dropout_add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float, eps: float, seed: Tensor
) -> Tensor:
    """LayerNorm(dropout(x) + residual) over the last dimension, in fp32 inside.

    `x` and `residual` are (..., width), `weight` and `bias` (width). `dropout` is a probability below 1. `seed` is one
    int64 on the device of `x`: what is dropped is a pure function of it and the shape, drawn by Philox and drawn again
    in the backward pass. Returns (..., width) in the wider of the types of `x` and `residual`.
    """
    y: Tensor = _dropout_add_norm(x, residual, weight, bias, dropout, eps, seed)
    return y


# --- Grouped feed-forward -------------------------------------------------------------------------------------------
# Tiles are powers of two, widths are not: a width is held as two tiles, 192 as 128 and 64, of which only the last is
# padded. Names: r rows, k and n places of a group before and after, m places of its middle; 0 and 1 the two tiles.


@triton.jit
def _tile(pointer, row, column, rows, columns, stride):
    """The tile at the given rows and columns of a row-major matrix, zero outside of it."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store(pointer, tile, row, column, rows, columns, stride):
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(pointer + row[:, None] * stride + column[None, :], tile.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _dot(a, b, total):
    if _interpreted:  # which multiplies the bit patterns of bf16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def _normal_cdf(h):
    return 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))


@triton.jit
def _tanh_cdf(h):
    """The logistic form of 0.5 * (1 + tanh(sqrt(2 / pi) * (h + 0.044715 * h^3)))."""
    return tl.sigmoid(1.5957691216057308 * (h + 0.044715 * h * h * h))


@triton.jit
def _activate(h, ACTIVATION: tl.constexpr):
    if ACTIVATION == "gelu":
        return h * _normal_cdf(h)
    elif ACTIVATION == "gelu_new":
        return h * _tanh_cdf(h)
    else:
        return tl.maximum(h, 0.0)


@triton.jit
def _slope(h, ACTIVATION: tl.constexpr):
    """The derivative of the activation."""
    if ACTIVATION == "gelu":
        return _normal_cdf(h) + h * 0.3989422804014327 * tl.exp(-0.5 * h * h)
    elif ACTIVATION == "gelu_new":
        cdf = _tanh_cdf(h)
        return cdf + h * cdf * (1.0 - cdf) * 1.5957691216057308 * (1.0 + 0.134145 * h * h)
    else:
        return tl.where(h > 0.0, 1.0, 0.0)


@triton.jit
def _middle(x0, x1, w0, w1, b1, m, M: tl.constexpr):
    """The middle before its activation, (rows, tile of the middle), in fp32."""
    bias = tl.load(b1 + m, mask=m < M, other=0.0).to(tl.float32)
    h = tl.zeros((x0.shape[0], w0.shape[0]), tl.float32) + bias[None, :]
    return _dot(x1, tl.trans(w1), _dot(x0, tl.trans(w0), h))


@triton.jit
def _ffn_kernel(
    x, w1, b1, w2, b2, y, rows,
    G: tl.constexpr, K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, ACTIVATION: tl.constexpr,
    R_TILE: tl.constexpr, M_TILE: tl.constexpr,
    K0: tl.constexpr, K1: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    r = tl.program_id(0).to(tl.int64) * R_TILE + tl.arange(0, R_TILE)
    k0, k1 = tl.arange(0, K0), K0 + tl.arange(0, K1)
    n0, n1 = tl.arange(0, N0), N0 + tl.arange(0, N1)
    x, y = x + group * K, y + group * N
    w1, b1, w2, b2 = w1 + group * M * K, b1 + group * M, w2 + group * N * M, b2 + group * N
    x0, x1 = _tile(x, r, k0, rows, K, G * K), _tile(x, r, k1, rows, K, G * K)
    y0 = tl.zeros((R_TILE, N0), tl.float32) + tl.load(b2 + n0, mask=n0 < N, other=0.0).to(tl.float32)[None, :]
    y1 = tl.zeros((R_TILE, N1), tl.float32) + tl.load(b2 + n1, mask=n1 < N, other=0.0).to(tl.float32)[None, :]
    for start in range(0, M, M_TILE):
        m = start + tl.arange(0, M_TILE)
        h = _middle(x0, x1, _tile(w1, m, k0, M, K, K), _tile(w1, m, k1, M, K, K), b1, m, M)
        a = _activate(h, ACTIVATION).to(x0.dtype)
        y0 = _dot(a, tl.trans(_tile(w2, n0, m, N, M, M)), y0)
        y1 = _dot(a, tl.trans(_tile(w2, n1, m, N, M, M)), y1)
    _store(y, y0, r, n0, rows, N, G * N)
    _store(y, y1, r, n1, rows, N, G * N)


@triton.jit
def _ffn_input_gradient_kernel(
    dy, x, w1, b1, w2, dx, rows,
    G: tl.constexpr, K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, ACTIVATION: tl.constexpr,
    R_TILE: tl.constexpr, M_TILE: tl.constexpr,
    K0: tl.constexpr, K1: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    r = tl.program_id(0).to(tl.int64) * R_TILE + tl.arange(0, R_TILE)
    k0, k1 = tl.arange(0, K0), K0 + tl.arange(0, K1)
    n0, n1 = tl.arange(0, N0), N0 + tl.arange(0, N1)
    dy, x, dx = dy + group * N, x + group * K, dx + group * K
    w1, b1, w2 = w1 + group * M * K, b1 + group * M, w2 + group * N * M
    x0, x1 = _tile(x, r, k0, rows, K, G * K), _tile(x, r, k1, rows, K, G * K)
    dy0, dy1 = _tile(dy, r, n0, rows, N, G * N), _tile(dy, r, n1, rows, N, G * N)
    dx0, dx1 = tl.zeros((R_TILE, K0), tl.float32), tl.zeros((R_TILE, K1), tl.float32)
    for start in range(0, M, M_TILE):
        m = start + tl.arange(0, M_TILE)
        w1_0, w1_1 = _tile(w1, m, k0, M, K, K), _tile(w1, m, k1, M, K, K)
        h = _middle(x0, x1, w1_0, w1_1, b1, m, M)
        da = tl.zeros((R_TILE, M_TILE), tl.float32)
        da = _dot(dy1, _tile(w2, n1, m, N, M, M), _dot(dy0, _tile(w2, n0, m, N, M, M), da))
        dh = (da * _slope(h, ACTIVATION)).to(x0.dtype)
        dx0, dx1 = _dot(dh, w1_0, dx0), _dot(dh, w1_1, dx1)
    _store(dx, dx0, r, k0, rows, K, G * K)
    _store(dx, dx1, r, k1, rows, K, G * K)


@triton.jit
def _ffn_weight_gradient_kernel(
    dy, x, w1, b1, w2, dw1, db1, dw2, rows,
    G: tl.constexpr, K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, ACTIVATION: tl.constexpr,
    R_TILE: tl.constexpr, M_TILE: tl.constexpr,
    K0: tl.constexpr, K1: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr,
):  # fmt: skip
    """One program a group, tile of the middle and part of the rows; `dw1`, `db1` and `dw2` have a part dimension."""
    group, part, parts = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    m = tl.program_id(0) * M_TILE + tl.arange(0, M_TILE)
    k0, k1 = tl.arange(0, K0), K0 + tl.arange(0, K1)
    n0, n1 = tl.arange(0, N0), N0 + tl.arange(0, N1)
    dy, x = dy + group * N, x + group * K
    w1, b1, w2 = w1 + group * M * K, b1 + group * M, w2 + group * N * M
    w1_0, w1_1 = _tile(w1, m, k0, M, K, K), _tile(w1, m, k1, M, K, K)
    w2_0, w2_1 = _tile(w2, n0, m, N, M, M), _tile(w2, n1, m, N, M, M)
    dw1_0, dw1_1 = tl.zeros((M_TILE, K0), tl.float32), tl.zeros((M_TILE, K1), tl.float32)
    dw2_0, dw2_1 = tl.zeros((N0, M_TILE), tl.float32), tl.zeros((N1, M_TILE), tl.float32)
    db = tl.zeros((M_TILE,), tl.float32)
    for tile in range(part, tl.cdiv(rows, R_TILE), parts):
        r = tl.cast(tile, tl.int64) * R_TILE + tl.arange(0, R_TILE)
        x0, x1 = _tile(x, r, k0, rows, K, G * K), _tile(x, r, k1, rows, K, G * K)
        dy0, dy1 = _tile(dy, r, n0, rows, N, G * N), _tile(dy, r, n1, rows, N, G * N)
        h = _middle(x0, x1, w1_0, w1_1, b1, m, M)
        da = _dot(dy1, w2_1, _dot(dy0, w2_0, tl.zeros((R_TILE, M_TILE), tl.float32)))
        dh = da * _slope(h, ACTIVATION)
        db += tl.sum(dh, axis=0)
        dh_t = tl.trans(dh.to(x0.dtype))
        dw1_0, dw1_1 = _dot(dh_t, x0, dw1_0), _dot(dh_t, x1, dw1_1)
        a = _activate(h, ACTIVATION).to(x0.dtype)
        dw2_0, dw2_1 = _dot(tl.trans(dy0), a, dw2_0), _dot(tl.trans(dy1), a, dw2_1)
    index = part * G + group
    _store(dw1 + index * M * K, dw1_0, m, k0, M, K, K)
    _store(dw1 + index * M * K, dw1_1, m, k1, M, K, K)
    _store(dw2 + index * N * M, dw2_0, n0, m, N, M, M)
    _store(dw2 + index * N * M, dw2_1, n1, m, N, M, M)
    tl.store(db1 + index * M + m, db, mask=m < M)


def _two_tiles(width: int) -> tuple[int, int]:
    """Two powers of two that cover a width, each at least the 16 that a product on tensor cores needs."""
    first = max(16, triton.next_power_of_2(width) // 2)
    return first, max(16, triton.next_power_of_2(width - first))


def _sizes(x: Tensor, w1: Tensor, w2: Tensor, groups: int, activation: str) -> dict[str, Any]:
    """The constants that the three kernels share, with tiles that fit an H100's 227 KiB of shared memory."""
    before, middle, after = w1.shape[1], w2.shape[1], w2.shape[0] // groups
    (k0, k1), (n0, n1) = _two_tiles(before), _two_tiles(after)
    rows = 32 if x.element_size() > 2 else 64 if max(before, after) > 192 else 128
    return {
        **{"G": groups, "K": before, "M": middle, "N": after, "ACTIVATION": activation},
        **{"K0": k0, "K1": k1, "N0": n0, "N1": n1},
        **{"R_TILE": rows, "M_TILE": min(rows, 64)},
    }


@torch.library.custom_op("sqzb::grouped_ffn", mutates_args=())
def _grouped_ffn(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str) -> Tensor:
    rows, y = x.numel() // x.shape[-1], x.new_empty(*x.shape[:-1], w2.shape[0])
    sizes = _sizes(x, w1, w2, groups, activation)
    x, w1, w2 = (tensor.to(x.dtype).contiguous() for tensor in (x, w1, w2))
    with torch.cuda.device_of(x):
        grid = (triton.cdiv(rows, sizes["R_TILE"]), groups)
        _ffn_kernel[grid](x, w1, b1, w2, b2, y, rows, **sizes, num_warps=WARPS, num_stages=2)
    return y


@torch.library.custom_op("sqzb::grouped_ffn_backward", mutates_args=())
def _grouped_ffn_backward(
    dy: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, groups: int, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, w1, b1 and w2."""
    rows, dx = x.numel() // x.shape[-1], torch.empty_like(x, memory_format=torch.contiguous_format)
    sizes = _sizes(x, w1, w2, groups, activation)
    weight_sizes = sizes | {"R_TILE": sizes["M_TILE"]}  # its sums take the registers of longer tiles
    parts = min(WEIGHT_PARTS, triton.cdiv(rows, weight_sizes["R_TILE"]))
    dw1, db1, dw2 = (x.new_empty(parts, *like.shape, dtype=torch.float32) for like in (w1, b1, w2))
    dy, x, half_w1, half_w2 = (tensor.to(x.dtype).contiguous() for tensor in (dy, x, w1, w2))
    with torch.cuda.device_of(x):
        _ffn_input_gradient_kernel[triton.cdiv(rows, sizes["R_TILE"]), groups](
            dy, x, half_w1, b1, half_w2, dx, rows, **sizes, num_warps=WARPS, num_stages=2
        )
        _ffn_weight_gradient_kernel[triton.cdiv(sizes["M"], sizes["M_TILE"]), groups, parts](
            dy, x, half_w1, b1, half_w2, dw1, db1, dw2, rows, **weight_sizes, num_warps=WARPS, num_stages=2
        )
    return dx, dw1.sum(0).to(w1.dtype), db1.sum(0).to(b1.dtype), dw2.sum(0).to(w2.dtype)


@_grouped_ffn.register_fake
def _(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, groups: int, activation: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], w2.shape[0])


@_grouped_ffn_backward.register_fake
def _(
    dy: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, groups: int, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(w1), torch.empty_like(b1), torch.empty_like(w2)


def _keep_for_ffn(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _ffn_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, w1, b1, w2, b2 = ctx.saved_tensors
    dx, dw1, db1, dw2 = _grouped_ffn_backward(dy, x, w1, b1, w2, ctx.groups, ctx.activation)
    db2 = dy.reshape(-1, dy.shape[-1]).sum(0, dtype=torch.float32).to(b2.dtype)
    return dx, dw1, db1, dw2, db2, None, None


_grouped_ffn.register_autograd(_ffn_gradients, setup_context=_keep_for_ffn)


# --- Dropout, residual sum, LayerNorm -------------------------------------------------------------------------------
# Nothing is kept for the backward pass but what went in: a row fits one program, so its statistics are found again
# without a further read.


@triton.jit
def _row(pointer, column, WIDTH: tl.constexpr):
    return tl.load(pointer + column, mask=column < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def _dropout_factor(seed, row, dropout, BLOCK: tl.constexpr):
    """0 or 1 / (1 - dropout) for every place of a row. A draw of Philox is four numbers, for four places."""
    a, b, c, d = tl.rand4x(seed, row * (BLOCK // 4) + tl.arange(0, BLOCK // 4))
    draw = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (BLOCK,))
    return tl.where(draw >= dropout, 1.0 / (1.0 - dropout), 0.0)


@triton.jit
def _normalized(total, column, eps, WIDTH: tl.constexpr):
    """A row with mean 0 and variance 1, and the factor that was needed."""
    centred = tl.where(column < WIDTH, total - tl.sum(total, axis=0) / WIDTH, 0.0)
    factor = tl.rsqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)
    return centred * factor, factor


@triton.jit
def _norm_kernel(
    x, residual, weight, bias, y, seed, dropout, eps,
    DROP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    total = _row(x + row * WIDTH, column, WIDTH)
    if DROP:
        total *= _dropout_factor(tl.load(seed), row, dropout, BLOCK)
    normalized, _ = _normalized(total + _row(residual + row * WIDTH, column, WIDTH), column, eps, WIDTH)
    out = normalized * _row(weight, column, WIDTH) + _row(bias, column, WIDTH)
    tl.store(y + row * WIDTH + column, out.to(y.dtype.element_ty), mask=column < WIDTH)


@triton.jit
def _norm_gradient_kernel(
    dy, x, residual, weight, dx, dresidual, dweight, dbias, seed, dropout, eps, rows,
    DROP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a part of the rows; `dweight` and `dbias` have a part dimension."""
    part, parts, column = tl.program_id(0), tl.num_programs(0), tl.arange(0, BLOCK)
    gain = _row(weight, column, WIDTH)
    dgain, doffset = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for index in range(part, rows, parts):
        row = tl.cast(index, tl.int64)
        total = _row(x + row * WIDTH, column, WIDTH)
        if DROP:
            factor = _dropout_factor(tl.load(seed), row, dropout, BLOCK)
            total *= factor
        normalized, scale = _normalized(total + _row(residual + row * WIDTH, column, WIDTH), column, eps, WIDTH)
        grad = _row(dy + row * WIDTH, column, WIDTH)
        dgain += grad * normalized
        doffset += grad
        grad *= gain
        along = tl.sum(grad * normalized, axis=0) / WIDTH
        dtotal = (grad - tl.sum(grad, axis=0) / WIDTH - normalized * along) * scale
        place, mask = row * WIDTH + column, column < WIDTH
        tl.store(dresidual + place, dtotal.to(dresidual.dtype.element_ty), mask=mask)
        if DROP:
            dtotal *= factor
        tl.store(dx + place, dtotal.to(dx.dtype.element_ty), mask=mask)
    tl.store(dweight + part * WIDTH + column, dgain, mask=column < WIDTH)
    tl.store(dbias + part * WIDTH + column, doffset, mask=column < WIDTH)


def _row_sizes(width: int, dropout: float) -> dict[str, Any]:
    return {"DROP": dropout > 0, "WIDTH": width, "BLOCK": max(16, triton.next_power_of_2(width))}


@torch.library.custom_op("sqzb::dropout_add_norm", mutates_args=())
def _dropout_add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float, eps: float, seed: Tensor
) -> Tensor:
    width = x.shape[-1]
    y = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype))
    x, residual = x.contiguous(), residual.contiguous()
    with torch.cuda.device_of(x):
        _norm_kernel[(x.numel() // width,)](
            x, residual, weight, bias, y, seed, dropout, eps, **_row_sizes(width, dropout)
        )
    return y


@torch.library.custom_op("sqzb::dropout_add_norm_backward", mutates_args=())
def _dropout_add_norm_backward(
    dy: Tensor, x: Tensor, residual: Tensor, weight: Tensor, dropout: float, eps: float, seed: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, residual and weight, and that of bias in fp32."""
    width = x.shape[-1]
    rows = x.numel() // width
    parts = min(NORM_PARTS, rows)
    dy, x, residual = dy.contiguous(), x.contiguous(), residual.contiguous()
    dx, dresidual = torch.empty_like(x), torch.empty_like(residual)
    dweight, dbias = (x.new_empty(parts, width, dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(x):
        _norm_gradient_kernel[(parts,)](
            dy, x, residual, weight, dx, dresidual, dweight, dbias, seed, dropout, eps, rows,
            **_row_sizes(width, dropout),
        )  # fmt: skip
    return dx, dresidual, dweight.sum(0).to(weight.dtype), dbias.sum(0)


@_dropout_add_norm.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float, eps: float, seed: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype))


@_dropout_add_norm_backward.register_fake
def _(
    dy: Tensor, x: Tensor, residual: Tensor, weight: Tensor, dropout: float, eps: float, seed: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    row = weight.new_empty(weight.shape, dtype=torch.float32)
    return x.new_empty(x.shape), residual.new_empty(residual.shape), torch.empty_like(weight), row


def _keep_for_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, residual, weight, bias, ctx.dropout, ctx.eps, seed = inputs
    ctx.save_for_backward(x, residual, weight, bias, seed)


def _norm_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, residual, weight, bias, seed = ctx.saved_tensors
    dx, dresidual, dweight, dbias = _dropout_add_norm_backward(dy, x, residual, weight, ctx.dropout, ctx.eps, seed)
    return dx, dresidual, dweight, dbias.to(bias.dtype), None, None, None


_dropout_add_norm.register_autograd(_norm_gradients, setup_context=_keep_for_norm)
