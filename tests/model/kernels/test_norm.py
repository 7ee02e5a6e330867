"""The kernel for bias, dropout, sum and LayerNorm, in Triton's interpreter, is the plain layers."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from examples import scaled
from sqzb.model.layers import ProjectAddNorm

pytest.importorskip("triton", reason="Triton is for Linux alone")
from sqzb.model.kernels import norm as module
from sqzb.model.kernels.norm import dropout_add_norm

EPS = 1e-12
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def close(got: tuple[Tensor, ...], due: tuple[Tensor, ...], tolerance: float) -> None:
    """Each pair differs by no more than the tolerance times the largest number in it."""
    for ours, theirs in zip(got, due, strict=True):
        assert_close(
            ours.double(),
            theirs.double(),
            rtol=tolerance,
            atol=tolerance * theirs.abs().max().item(),
        )


def with_gradients(y: Tensor, wrt: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y)
    return y.detach(), *torch.autograd.grad(y, wrt, direction)


def norm_inputs(
    rows: int, width: int, x_type: torch.dtype, residual_type: torch.dtype
) -> tuple[Tensor, ...]:
    shapes = (rows, width), (width,), (rows, width), (width,), (width,)
    types = x_type, torch.float32, residual_type, torch.float32, torch.float32
    return tuple(
        (3 * torch.randn(shape)).to(dtype).requires_grad_()
        for shape, dtype in zip(shapes, types, strict=True)
    )


def fused_norm(inputs: tuple[Tensor, ...], dropout: float, seed: Tensor) -> Tensor:
    x, offset, residual, weight, bias = inputs
    return dropout_add_norm(x, offset, residual, weight, bias, dropout, EPS, seed)


def kept(rows: int, width: int, dropout: float, seed: Tensor) -> Tensor:
    """What dropout leaves: of equal numbers, those above the mean of their row."""
    ones, zeros = torch.ones(rows, width), torch.zeros(rows, width)
    return dropout_add_norm(ones, zeros[0], zeros, ones[0], zeros[0], dropout, EPS, seed) > 0


def plain_norm(inputs: tuple[Tensor, ...], factor: Tensor | float) -> tuple[Tensor, ...]:
    x, offset, residual, weight, bias = copies = tuple(
        tensor.detach().double().requires_grad_() for tensor in inputs
    )
    return with_gradients(
        F.layer_norm((x + offset) * factor + residual, weight.shape, weight, bias, EPS), copies
    )


@settings(max_examples=scaled(6), deadline=None)
@given(
    st.integers(1, 9),
    st.integers(20, 150),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 2**63 - 1),
)
def test_fused_dropout_and_norm_are_the_plain_ones_with_the_same_places_dropped(
    rows: int,
    width: int,
    x_type: torch.dtype,
    residual_type: torch.dtype,
    dropout: float,
    number: int,
) -> None:
    inputs, seed = norm_inputs(rows, width, x_type, residual_type), torch.tensor(number)
    mask = kept(rows, width, dropout, seed) if dropout else torch.ones(rows, width)
    # A row that is dropped whole or kept whole cannot be told from its output.
    assume(not dropout or mask.any(1).all())
    got = with_gradients(fused_norm(inputs, dropout, seed), inputs)
    assert [tensor.dtype for tensor in got] == [
        (inputs[0] + inputs[2]).dtype,
        *(tensor.dtype for tensor in inputs),
    ]
    close(
        got,
        plain_norm(inputs, mask / (1 - dropout)),
        max(TOLERANCE[x_type], TOLERANCE[residual_type]),
    )


def test_without_dropout_it_is_what_follows_the_linear_layer() -> None:
    layer = ProjectAddNorm(96, 96, 2, dropout=0.0).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x, residual, norm = torch.randn(10, 96), torch.randn(10, 96), layer.layernorm
    projected = layer.conv1d(x.double())
    offset, weight, bias = layer.conv1d.bias.float(), norm.weight.float(), norm.bias.float()
    got = dropout_add_norm(
        projected.float() - offset, offset, residual, weight, bias, 0.0, EPS, torch.tensor(0)
    )
    close((got,), (layer(projected, residual.double()),), 1e-5)


def test_a_program_may_have_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, seed = norm_inputs(11, 40, torch.float32, torch.float32), torch.tensor(3)
    monkeypatch.setattr(module, "PARTS", 3)
    got = with_gradients(fused_norm(inputs, 0.2, seed), inputs)
    close(got, plain_norm(inputs, kept(11, 40, 0.2, seed) / 0.8), 1e-5)


@pytest.mark.parametrize(("number", "dropout"), [(0, 0.1), (2**32 + 1, 0.3), (-(2**63), 0.5)])
def test_places_are_dropped_at_the_rate_asked_for_and_independently(
    number: int, dropout: float
) -> None:
    rows, width = 8, 500
    mask, again, other = (
        kept(rows, width, dropout, torch.tensor(n)) for n in (number, number, number + 1)
    )
    assert mask.equal(again)
    bound = (
        6 * (0.25 / (rows * width)) ** 0.5
    )  # of six standard deviations, at the variance's largest
    assert mask.double().mean().item() == pytest.approx(1 - dropout, abs=bound)
    # Draws that belong together in no way agree as often as two coins: by seed, row, place, and
    # lane of a draw.
    for one, two in [
        (mask, other),
        (mask[1:], mask[:-1]),
        *((mask[:, n:], mask[:, :-n]) for n in (1, 2, 3, 4)),
    ]:
        agree = (one == two).double().mean().item()
        assert agree == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=1.2 * bound)
    stretches = torch.cat((mask, other)).unfold(1, 200, 1).flatten(0, 1)
    assert len(stretches.unique(dim=0)) == len(stretches), "a stretch of draws came twice"


def test_torch_compile_takes_it_whole_and_forward_and_backward() -> None:
    inputs, seed = norm_inputs(5, 48, torch.bfloat16, torch.bfloat16), torch.tensor(7)

    def block(*inputs: Tensor) -> Tensor:
        return 2 * fused_norm(inputs, 0.1, seed)

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    close(with_gradients(compiled(*inputs), inputs), with_gradients(block(*inputs), inputs), 1e-6)


def test_the_operator_keeps_the_rules_of_torch() -> None:
    inputs = norm_inputs(3, 20, torch.bfloat16, torch.float32)
    torch.library.opcheck(
        torch.ops.sqzb.dropout_add_norm.default, (*inputs, 0.5, EPS, torch.tensor(1))
    )
