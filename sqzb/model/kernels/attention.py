"""Softmax attention on queries, keys and values that one product has packed into one tensor.

The scores of a head never leave the chip; the backward pass recomputes them from each row's maximum
and its sum of exponentials (Dao 2023, FlashAttention-2). A short sequence, as in most of
pretraining, is one block, whose backward takes five products and no second pass over the keys.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sqzb.model.kernels.common import dot, dropout_factor
from sqzb.model.operators import fake, operator
from sqzb.model.unpadding import SequenceRows

HEAD_WIDTHS = (16, 32, 64, 128)
LOG2_E = 1.4426950408889634


def packed_attention(
    packed: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    batch: int,
    heads: int,
    groups: int,
    dropout: float,
    seed: Tensor,
    sequences: SequenceRows | None = None,
) -> Tensor:
    """Compute the attention of each head: (rows, 3 * width) to (rows, width).

    Scores are scaled by 1 / sqrt(width of a head); they and their sums are fp32.

    packed: the rows of `batch` sequences, one after the other. A row holds, group by group, the
    queries, the keys and the values of the group's heads, one head beside the other.
    bias: (3 * width) in the same order, added to `packed` here. It gets no gradient here, because
    `grouped_product` computes it.
    mask: fp32 (batch, length), added to the scores.
    dropout: probability, below 1, with which an attention weight is dropped.
    seed: one int64 on the device of `packed`; the dropped weights are a pure function of it and the
    shape.
    sequences: the places of the sequences, if the rows have no padding; then there is no mask. The
    context of a row of no sequence is 0.

    Raises:
        ValueError: a head is not 16, 32, 64 or 128 wide, or the sizes do not divide.
    """
    width = packed.shape[1] // 3 // heads
    if width not in HEAD_WIDTHS:
        raise ValueError(f"a head is {width} wide, and must be 16, 32, 64 or 128")
    if (packed.shape[0] % batch and sequences is None) or heads % groups:
        raise ValueError(
            f"{packed.shape[0]} rows are not of {batch} sequences, or {heads} heads are not of "
            f"{groups} groups"
        )
    starts, longest = (None, 0) if sequences is None else (sequences.starts, sequences.length)
    context: Tensor = _packed_attention(
        packed, bias.detach(), mask, batch, heads, groups, dropout, seed, starts, longest
    )[0]
    return context


def _forward_sizes(length: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the queries of a program, the keys of a step, warps and stages."""
    whole = max(16, triton.next_power_of_2(length))
    return {
        "M_TILE": min(whole, 64 if dtype.itemsize == 2 else 32),
        "N_TILE": min(whole, 32),
        "num_warps": 4,
        "num_stages": 1,
    }


def _backward_sizes(length: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the keys of a program, the queries of a step, warps and stages.

    There is one stage, because Triton's pipeline allocates too few buffers for a tile that both a
    product and a sum read.
    """
    whole = max(16, triton.next_power_of_2(length))
    if dtype.itemsize > 2:
        return {"M_TILE": min(whole, 32), "N_TILE": min(whole, 32), "num_warps": 4, "num_stages": 1}
    keys = 128 if length <= 128 else 64
    return {
        "M_TILE": min(whole, 64),
        "N_TILE": min(whole, keys),
        "num_warps": keys // 16,
        "num_stages": 1,
    }


@triton.jit
def _sequence(starts, item, length, UNPADDED: tl.constexpr):
    """Return the first row of a sequence, and its number of rows."""
    if UNPADDED:
        begin = tl.load(starts + item)
        size = (tl.load(starts + item + 1) - begin).to(tl.int32)
    else:
        begin = item * length
        size = length
    return begin, size


@triton.jit
def _rows(pointer, row, place, length, stride):
    return tl.load(
        pointer + row[:, None] * stride + place[None, :], mask=(row < length)[:, None], other=0.0
    )


@triton.jit
def _put(pointer, tile, row, place, length, stride):
    at = pointer + row[:, None] * stride + place[None, :]
    tl.store(at, tile.to(pointer.dtype.element_ty), mask=(row < length)[:, None])


@triton.jit
def _plus(tile, bias):
    return (tile.to(tl.float32) + tl.load(bias).to(tl.float32)[None, :]).to(tile.dtype)


@triton.jit
def _added(mask, column, length, MASK: tl.constexpr):
    """Return what is added to the scores of each key: mask and padding, in units of log 2."""
    if MASK:
        added = (
            tl.maximum(tl.load(mask + column, mask=column < length, other=0.0), -1e38)
            * 1.4426950408889634
        )
    else:
        added = tl.zeros((column.shape[0],), tl.float32)
    return tl.where(column < length, added, -float("inf"))


@triton.jit
def _sums(sums, row, size, length):
    """Return each row's largest score, and one over its sum of exp(score - largest)."""
    inside = row < size
    return tl.load(sums + row, mask=inside, other=0.0), tl.load(
        sums + length + row, mask=inside, other=0.0
    )


@triton.jit(do_not_specialize=["length"])
def _forward_kernel(
    qkv, bias, mask, starts, context, sums, seed, length, scale, dropout,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, MASK: tl.constexpr, DROP: tl.constexpr,
    UNPADDED: tl.constexpr, M_TILE: tl.constexpr, N_TILE: tl.constexpr,
):  # fmt: skip
    """Compute the context of M_TILE queries in each program.

    UNPADDED: sequences have no padding. Behind them, as a sequence more, come the rows of none,
    whose context is 0.
    """
    blocks = tl.cdiv(length, M_TILE)
    stream, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * M_TILE
    item, head = (stream // H).to(tl.int64), stream % H
    WIDTH: tl.constexpr = H // G * D
    place = tl.arange(0, D)
    stride: tl.constexpr = 3 * H * D
    column_of_head = head // (H // G) * (3 * WIDTH) + head % (H // G) * D
    begin, size = _sequence(starts, item, length, UNPADDED)
    context += begin * (H * D) + head * D
    if UNPADDED:
        if item == tl.num_programs(0) // (H * blocks) - 1:
            nothing = tl.zeros((M_TILE, D), tl.float32)
            for start in range(first, size, blocks * M_TILE):
                _put(context, nothing, start + tl.arange(0, M_TILE), place, size, H * D)
            return
        if first >= size:
            return
    query, bias = qkv + begin * stride + column_of_head, bias + column_of_head
    row = first + tl.arange(0, M_TILE)
    q = _plus(_rows(query, row, place, size, stride), bias + place)
    most = tl.full((M_TILE,), -float("inf"), tl.float32)
    total = tl.zeros((M_TILE,), tl.float32)
    y = tl.zeros((M_TILE, D), tl.float32)
    if DROP:
        number = tl.load(seed)
    for start in range(0, size, N_TILE):
        column = start + tl.arange(0, N_TILE)
        # The bias of the keys is left out, because it adds the same to all scores of a query.
        k = _rows(query + WIDTH, column, place, size, stride)
        v = _plus(_rows(query + 2 * WIDTH, column, place, size, stride), bias + 2 * WIDTH + place)
        s = dot(q, tl.trans(k), tl.zeros((M_TILE, N_TILE), tl.float32)) * scale
        s += _added(mask + item * length, column, size, MASK)[None, :]
        above = tl.maximum(most, tl.max(s, axis=1))
        p = tl.exp2(s - above[:, None])
        shrink = tl.exp2(most - above)
        total = total * shrink + tl.sum(p, axis=1)
        if DROP:
            p *= dropout_factor(number, stream, row[:, None] * length + column[None, :], dropout)
        y = dot(p.to(v.dtype), v, y * shrink[:, None])
        most = above
    sums += stream.to(tl.int64) * 2 * length + row
    tl.store(sums, most, mask=row < size)
    tl.store(sums + length, 1.0 / total, mask=row < size)
    _put(context, y / total[:, None], row, place, size, H * D)


@triton.jit(do_not_specialize=["length"])
def _backward_kernel(
    dcontext, qkv, bias, mask, starts, context, sums, dqkv, seed, length, scale, dropout,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, MASK: tl.constexpr, DROP: tl.constexpr,
    UNPADDED: tl.constexpr, ONE: tl.constexpr, M_TILE: tl.constexpr, N_TILE: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of N_TILE keys and values, and of as many queries, in each program.

    `scale` is that of the scores in units of log 2. A program loops over the other side by M_TILE.
    ONE: N_TILE covers the whole sequence.
    UNPADDED: as in the forward kernel.
    """
    blocks = tl.cdiv(length, N_TILE)
    stream, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * N_TILE
    item, head = (stream // H).to(tl.int64), stream % H
    WIDTH: tl.constexpr = H // G * D
    stride: tl.constexpr = 3 * H * D
    column_of_head = head // (H // G) * (3 * WIDTH) + head % (H // G) * D
    place = tl.arange(0, D)
    begin, size = _sequence(starts, item, length, UNPADDED)
    dquery = dqkv + begin * stride + column_of_head
    if UNPADDED:
        if item == tl.num_programs(0) // (H * blocks) - 1:
            zeros = tl.zeros((N_TILE, D), tl.float32)
            for start in range(first, size, blocks * N_TILE):
                other = start + tl.arange(0, N_TILE)
                _put(dquery, zeros, other, place, size, stride)
                _put(dquery + WIDTH, zeros, other, place, size, stride)
                _put(dquery + 2 * WIDTH, zeros, other, place, size, stride)
            return
        if first >= size:
            return
    query, bias = qkv + begin * stride + column_of_head, bias + column_of_head
    beside = begin * (H * D) + head * D
    context, dcontext, sums = (
        context + beside,
        dcontext + beside,
        sums + stream.to(tl.int64) * 2 * length,
    )
    column = first + tl.arange(0, N_TILE)
    log_2: tl.constexpr = 0.6931471805599453
    if DROP:
        number = tl.load(seed)
    k = _rows(query + WIDTH, column, place, size, stride)
    v = _plus(_rows(query + 2 * WIDTH, column, place, size, stride), bias + 2 * WIDTH + place)
    added = _added(mask + item * length, column, size, MASK)
    dk, dv = tl.zeros((N_TILE, D), tl.float32), tl.zeros((N_TILE, D), tl.float32)
    nothing = tl.zeros((N_TILE, M_TILE), tl.float32)
    for start in range(0, size, M_TILE):
        row = start + tl.arange(0, M_TILE)
        q = _plus(_rows(query, row, place, size, stride), bias + place)
        dy = _rows(dcontext, row, place, size, H * D)
        most, inverse = _sums(sums, row, size, length)
        # The scores are transposed, so that their results enter the next product without a copy.
        p = (
            tl.exp2(dot(k, tl.trans(q), nothing) * scale + added[:, None] - most[None, :])
            * inverse[None, :]
        )
        dp = dot(v, tl.trans(dy), nothing)
        if DROP:
            factor = dropout_factor(
                number, stream, row[None, :] * length + column[:, None], dropout
            )
            dv = dot((p * factor).to(dy.dtype), dy, dv)
            dp *= factor
        else:
            dv = dot(p.to(dy.dtype), dy, dv)
        # The row's dot product of weights and their gradients, which the softmax subtracts. Flash
        # attention takes it from the rounded context, an error of up to a tenth of the gradient of
        # queries and keys if the values are alike; computed from the weights, it is as exact as
        # they are.
        if ONE:
            delta = tl.sum(p * dp, axis=0)
        else:
            y = _rows(context, row, place, size, H * D)
            delta = tl.sum(dy.to(tl.float32) * y.to(tl.float32), axis=1)
        ds = (p * (dp - delta[None, :])).to(q.dtype)
        dk = dot(ds, q, dk)
        if ONE:
            dq = dot(tl.trans(ds), k, tl.zeros((M_TILE, D), tl.float32))
            _put(dquery, dq * (scale * log_2), row, place, size, stride)
    _put(dquery + WIDTH, dk * (scale * log_2), column, place, size, stride)
    _put(dquery + 2 * WIDTH, dv, column, place, size, stride)
    if not ONE:
        q = _plus(_rows(query, column, place, size, stride), bias + place)
        dy = _rows(dcontext, column, place, size, H * D)
        y = _rows(context, column, place, size, H * D)
        delta = tl.sum(dy.to(tl.float32) * y.to(tl.float32), axis=1)
        most, inverse = _sums(sums, column, size, length)
        dq = tl.zeros((N_TILE, D), tl.float32)
        zero = tl.zeros((N_TILE, M_TILE), tl.float32)
        for start in range(0, size, M_TILE):
            other = start + tl.arange(0, M_TILE)
            its_k = _rows(query + WIDTH, other, place, size, stride)
            its_v = _plus(
                _rows(query + 2 * WIDTH, other, place, size, stride), bias + 2 * WIDTH + place
            )
            its = _added(mask + item * length, other, size, MASK)
            p = (
                tl.exp2(dot(q, tl.trans(its_k), zero) * scale + its[None, :] - most[:, None])
                * inverse[:, None]
            )
            dp = dot(dy, tl.trans(its_v), zero)
            if DROP:
                dp *= dropout_factor(
                    number, stream, column[:, None] * length + other[None, :], dropout
                )
            dq = dot((p * (dp - delta[:, None])).to(its_k.dtype), its_k, dq)
        _put(dquery, dq * (scale * log_2), column, place, size, stride)


def _constants(
    qkv: Tensor,
    mask: Tensor | None,
    heads: int,
    groups: int,
    dropout: float,
    starts: Tensor | None = None,
) -> dict[str, Any]:
    width = qkv.shape[1] // 3 // heads
    return {
        "H": heads,
        "G": groups,
        "D": width,
        "MASK": mask is not None,
        "DROP": dropout > 0,
        "UNPADDED": starts is not None,
    }


@operator("packed_attention")
def _packed_attention(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    batch: int,
    heads: int,
    groups: int,
    dropout: float,
    seed: Tensor,
    starts: Tensor | None = None,
    longest: int = 0,
) -> tuple[Tensor, Tensor]:
    length, width = longest or len(qkv) // batch, qkv.shape[1] // 3
    qkv, mask = qkv.contiguous(), None if mask is None else mask.contiguous()
    context = qkv.new_empty(len(qkv), width)
    # Without padding, the kernel writes no sums behind a sequence's end, and reads none.
    new = qkv.new_empty if starts is None else qkv.new_zeros
    sums = new(batch, heads, 2, length, dtype=torch.float32)
    sizes = _forward_sizes(length, qkv.dtype)
    scale = (width // heads) ** -0.5 * LOG2_E
    items = batch if starts is None else batch + 1
    with torch.cuda.device_of(qkv):
        _forward_kernel[(items * heads * triton.cdiv(length, sizes["M_TILE"]),)](
            qkv, bias, qkv if mask is None else mask, seed if starts is None else starts, context,
            sums, seed, length, scale, dropout,
            **_constants(qkv, mask, heads, groups, dropout, starts), **sizes,
        )  # fmt: skip
    return context, sums


@operator("packed_attention_backward")
def _packed_attention_backward(
    dcontext: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, context: Tensor, sums: Tensor,
    batch: int, heads: int, groups: int, dropout: float, seed: Tensor, starts: Tensor | None = None,
    longest: int = 0,
) -> Tensor:  # fmt: skip
    length, width = longest or len(qkv) // batch, qkv.shape[1] // 3
    qkv, mask = qkv.contiguous(), None if mask is None else mask.contiguous()
    dqkv = torch.empty_like(qkv)
    sizes = _backward_sizes(length, qkv.dtype)
    blocks = triton.cdiv(length, sizes["N_TILE"])
    scale = (width // heads) ** -0.5 * LOG2_E
    items = batch if starts is None else batch + 1
    with torch.cuda.device_of(qkv):
        _backward_kernel[(items * heads * blocks,)](
            dcontext.contiguous(), qkv, bias, qkv if mask is None else mask,
            seed if starts is None else starts, context, sums, dqkv, seed, length, scale, dropout,
            ONE=blocks == 1, **_constants(qkv, mask, heads, groups, dropout, starts), **sizes,
        )  # fmt: skip
    return dqkv


@fake(_packed_attention)
def _(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    batch: int,
    heads: int,
    groups: int,
    dropout: float,
    seed: Tensor,
    starts: Tensor | None = None,
    longest: int = 0,
) -> tuple[Tensor, Tensor]:
    rows, width = qkv.shape[0], qkv.shape[1] // 3
    return qkv.new_empty(rows, width), qkv.new_empty(
        batch, heads, 2, longest or rows // batch, dtype=torch.float32
    )


@fake(_packed_attention_backward)
def _(
    dcontext: Tensor, qkv: Tensor, bias: Tensor, mask: Tensor | None, context: Tensor, sums: Tensor,
    batch: int, heads: int, groups: int, dropout: float, seed: Tensor, starts: Tensor | None = None,
    longest: int = 0,
) -> Tensor:  # fmt: skip
    return torch.empty_like(qkv)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, bias, mask, ctx.batch, ctx.heads, ctx.groups, ctx.dropout, seed, starts, ctx.longest = (
        inputs
    )
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, bias, mask, *output, seed, starts)


def _gradients(ctx: Any, dcontext: Tensor, _: None) -> tuple[Tensor | None, ...]:
    qkv, bias, mask, context, sums, seed, starts = ctx.saved_tensors
    dqkv = _packed_attention_backward(
        dcontext,
        qkv,
        bias,
        mask,
        context,
        sums,
        ctx.batch,
        ctx.heads,
        ctx.groups,
        ctx.dropout,
        seed,
        starts,
        ctx.longest,
    )
    return dqkv, None, None, None, None, None, None, None, None, None


torch.library.register_autograd(_packed_attention, _gradients, setup_context=_keep)
