"""Grouped products by kernels, in Triton's interpreter, are the plain ones."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from examples import scaled

pytest.importorskip("triton", reason="Triton is for Linux alone")
import triton
import triton.language as tl

from sqzb.model.kernels import linear
from sqzb.model.kernels.linear import WeightTiles, fused_feed_forward, grouped_product

BF16, FP32 = torch.bfloat16, torch.float32
TOLERANCE = {FP32: 1e-5, BF16: 2e-2}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def close(got: tuple[Tensor, ...], due: tuple[Tensor, ...], tolerance: float) -> None:
    """Each pair differs by no more than the tolerance times the largest number in it, or a tenth:
    all are sums of numbers about 1, and where there are few of them they may cancel.
    """
    for ours, theirs in zip(got, due, strict=True):
        largest = max(theirs.abs().max().item(), 0.1)
        assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * largest)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def with_gradients(y: Tensor, wrt: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y)
    return y.detach(), *torch.autograd.grad(y, wrt, direction)


def parameters(
    groups: int, before: int, after: int, dtype: torch.dtype = FP32
) -> tuple[Tensor, Tensor]:
    weight, bias = (
        torch.randn(groups * after, before, 1) * before**-0.5,
        torch.randn(groups * after),
    )
    return weight.to(dtype).requires_grad_(), bias.to(dtype).requires_grad_()


def rows_of(rows: int, width: int, dtype: torch.dtype = FP32) -> Tensor:
    return torch.randn(rows, width).to(dtype).requires_grad_()


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """What reads a product adds the bias."""
    y = grouped_product(x, weight, bias, groups)
    return y + bias.detach().to(y.dtype)


def product(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    by_group = torch.einsum(
        "rgk,gnk->rgn", x.unflatten(-1, (groups, -1)), weight.view(groups, -1, weight.shape[1])
    )
    return by_group.flatten(1) + bias


def plain(
    x: Tensor,
    layers: tuple[Tensor, ...],
    groups: int,
    activation: str = "",
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:
    """In float64, one or two layers, with weights that are first rounded to the type of x, as the
    kernels round.
    """
    dtype = dtype or x.dtype
    copies = tuple(
        (tensor.to(dtype) if number % 2 == 0 else tensor).detach().double().requires_grad_()
        for number, tensor in enumerate((*layers, x)[: len(layers)])
    )
    x = x.detach().to(dtype).double().requires_grad_()
    y = product(x, copies[0], copies[1], groups)
    if activation:
        y = product(ACTIVATIONS[activation](y), copies[2], copies[3], groups)
    return with_gradients(y, (x, *copies))


def fused(
    x: Tensor, layers: tuple[Tensor, ...], groups: int, activation: str = ""
) -> tuple[Tensor, ...]:
    if not activation:
        return with_gradients(grouped_linear(x, layers[0], layers[1], groups), (x, *layers))
    y = fused_feed_forward(x, layers[0], layers[1], layers[2], groups, activation)
    return with_gradients(y + layers[3].to(y.dtype), (x, *layers))


def small_tiles(patch: pytest.MonkeyPatch, columns: tuple[int, int]) -> None:
    """Several tiles to a matrix and several parts to a sum."""
    before = columns[::-1] if columns[1] else columns
    tiles = WeightTiles(after=columns, before=before, step=16, programs=9, warps=4, stages=2)
    patch.setattr(linear, "weight_tiles", lambda *_: tiles)


# Groups, rows, widths of a group before and after.
@settings(max_examples=scaled(5))
@given(
    st.tuples(*(st.integers(1, top) for top in (3, 40, 50, 50))),
    st.sampled_from([(16, 0), (32, 16)]),
)
def test_a_grouped_linear_layer_is_the_plain_one(
    sizes: tuple[int, ...], columns: tuple[int, int]
) -> None:
    groups, rows, before, after = sizes
    layer, x = parameters(groups, before, after), rows_of(rows, groups * before)
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch, columns)
        close(fused(x, layer, groups), plain(x, layer, groups), 1e-5)


# Groups, rows, widths of a group before, in the middle and after.
@settings(max_examples=scaled(5))
@given(
    st.tuples(*(st.integers(1, top) for top in (3, 40, 40, 50, 40))),
    st.sampled_from(list(ACTIVATIONS)),
)
def test_the_feed_forward_block_is_the_plain_one(sizes: tuple[int, ...], activation: str) -> None:
    groups, rows, before, middle, after = sizes
    layers = *parameters(groups, before, middle), *parameters(groups, middle, after)
    x = rows_of(rows, groups * before)
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch, (32, 16))
        close(fused(x, layers, groups, activation), plain(x, layers, groups, activation), 1e-5)


@triton.jit  # type: ignore[untyped-decorator]
def gelu_of_16_bits(x, value, slope, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    h = tl.load(x + index)
    tl.store(value + index, linear._activate(h, "gelu", True))
    tl.store(slope + index, linear._slope(h, "gelu", True))


def test_gelu_of_16_bits_is_exact_to_far_less_than_its_rounding() -> None:
    x = torch.cat((torch.linspace(-20, 20, 4093), torch.tensor([1e4, -1e4, 0.0]))).requires_grad_()
    value, slope = torch.empty(4096), torch.empty(4096)
    gelu_of_16_bits[(4,)](x.detach(), value, slope, 1024)
    due = F.gelu(x.double())
    (due_slope,) = torch.autograd.grad(due.sum(), x)
    assert_close(value.double(), due.detach(), rtol=0, atol=1e-6)
    assert_close(slope, due_slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_new"]
)  # relu's slope jumps where a rounded number turns 0
def test_of_bf16_inputs_the_gradients_of_the_weights_stay_fp32(activation: str) -> None:
    layers, x = (*parameters(2, 24, 70), *parameters(2, 70, 40)), rows_of(10, 48, BF16)
    got = fused(x, layers, 2, activation)
    assert [tensor.dtype for tensor in got] == [BF16] * 2 + [FP32] * 4
    close(got, plain(x, layers, 2, activation), 2e-2)
    assert [tensor.dtype for tensor in fused(x, layers[:2], 2)] == [BF16] * 2 + [FP32] * 2


def test_weights_of_a_narrow_type_have_gradients_of_it() -> None:
    layers, x = (*parameters(2, 24, 30, BF16), *parameters(2, 30, 40, BF16)), rows_of(10, 48, BF16)
    for due in (layers, layers[:2]):
        got = fused(x, due, 2, "gelu" if len(due) == 4 else "")
        assert {tensor.dtype for tensor in got} == {BF16}
        close(got, plain(x, due, 2, "gelu" if len(due) == 4 else ""), 2e-2)


@pytest.mark.parametrize(
    ("groups", "before", "middle", "after", "rows", "dtype"),
    [
        pytest.param(1, 192, 768, 192, 130, BF16, id="the published widths"),
        pytest.param(1, 256, 300, 17, 5, BF16, id="a middle that no tile fits"),
        pytest.param(1, 200, 100, 140, 70, FP32, id="several tiles of fp32"),
    ],
)
def test_the_tiles_that_a_gpu_gets_cover_every_row_and_width(
    groups: int, before: int, middle: int, after: int, rows: int, dtype: torch.dtype
) -> None:
    layers = *parameters(groups, before, middle), *parameters(groups, middle, after)
    x = rows_of(rows, groups * before, dtype)
    close(fused(x, layers, groups, "gelu"), plain(x, layers, groups, "gelu"), TOLERANCE[dtype])


@pytest.mark.parametrize("activation", ["", "gelu"])
def test_inputs_and_gradients_may_lie_in_memory_in_any_order(activation: str) -> None:
    layers: tuple[Tensor, ...] = (*parameters(2, 8, 16), *parameters(2, 16, 8))
    layers = layers if activation else layers[:2]
    x = torch.randn(16, 5).t().requires_grad_()
    turned = tuple(
        tensor.detach().flip(0).flip(0).mT.contiguous().mT.requires_grad_()
        for tensor in layers[::2]
    )
    shuffled = tuple(turned[n // 2] if n % 2 == 0 else tensor for n, tensor in enumerate(layers))
    close(fused(x, shuffled, 2, activation), plain(x, layers, 2, activation), 1e-5)
    wrt = layers[:3] if activation else layers
    if activation:
        y = fused_feed_forward(x, layers[0], layers[1], layers[2], 2, activation)
    else:
        y = grouped_product(x, layers[0], layers[1], 2)
    expanded, whole = torch.ones(1).expand(y.shape), torch.ones(y.shape)
    found = [
        torch.autograd.grad(y, (x, *wrt), ones, retain_graph=True) for ones in (expanded, whole)
    ]
    close(found[0], found[1], 1e-6)


@pytest.mark.parametrize("activation", ["", "gelu"])
def test_autocast_sets_the_type_of_the_activations_alone(activation: str) -> None:
    layers: tuple[Tensor, ...] = (*parameters(2, 16, 32), *parameters(2, 32, 16))
    x = rows_of(6, 32)
    layers = layers if activation else layers[:2]
    with torch.autocast("cpu", BF16):
        got = fused(x, layers, 2, activation)
    assert [tensor.dtype for tensor in got] == [BF16] + [FP32] * (1 + len(layers))
    close(got, plain(x, layers, 2, activation, BF16), 2e-2)


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    layers, x = (*parameters(2, 8, 16), parameters(2, 16, 8)[0]), rows_of(5, 16)
    due = fused_feed_forward(x, *layers, 2, "gelu")
    with torch.no_grad():
        y, *kept = torch.ops.sqzb.feed_forward_kernel(x, *layers, 2, "gelu", False)
        assert [tensor.numel() for tensor in kept] == [0, 0]
        assert y.equal(due) and fused_feed_forward(x, *layers, 2, "gelu").equal(due)


def test_torch_compile_takes_both_whole_and_forward_and_backward() -> None:
    layers, x = (*parameters(2, 24, 40), parameters(2, 40, 24)[0]), rows_of(10, 48)

    def block(x: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            return fused_feed_forward(grouped_product(x, *square, 2), *layers, 2, "gelu")

    square = parameters(2, 24, 24)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    wrt = x, *square, *layers
    close(with_gradients(compiled(x), wrt), with_gradients(block(x), wrt), 1e-6)


def test_the_operators_keep_the_rules_of_torch() -> None:
    layers, x = (*parameters(2, 8, 16), parameters(2, 16, 8)[0]), rows_of(3, 16)
    torch.library.opcheck(torch.ops.sqzb.grouped_product.default, (x, *layers[:2], 2))
    for keep in (True, False):
        arguments = (x, *layers) if keep else tuple(tensor.detach() for tensor in (x, *layers))
        torch.library.opcheck(
            torch.ops.sqzb.feed_forward_kernel.default, (*arguments, 2, "relu", keep)
        )
