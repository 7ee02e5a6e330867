"""A grouped layer is torch's grouped convolution, and a dense layer whose weight is block-diagonal."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.layers import GroupedLinear, ProjectAddNorm, activation, initialize

# Groups, widths of a group before and after, batch, length.
sizes = st.tuples(*(st.integers(1, top) for top in (6, 5, 5, 4, 6)))


def layer_and_input(sizes: tuple[int, ...]) -> tuple[GroupedLinear, Tensor]:
    groups, before, after, batch, length = sizes
    layer = GroupedLinear(groups * before, groups * after, groups).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer, torch.randn(batch, length, groups * before, dtype=torch.float64, requires_grad=True)


def as_convolution(layer: GroupedLinear, x: Tensor) -> Tensor:
    return F.conv1d(x.transpose(1, 2), layer.weight, layer.bias, groups=layer.groups).transpose(1, 2)


def as_dense(layer: GroupedLinear, x: Tensor) -> Tensor:
    return F.linear(x, torch.block_diag(*layer.weight.squeeze(2).chunk(layer.groups)), layer.bias)


@settings(max_examples=60)
@given(sizes, st.sampled_from([as_convolution, as_dense]))
def test_a_grouped_layer_is_a_convolution_and_a_block_diagonal_dense_layer(
    sizes: tuple[int, ...], other: Callable[[GroupedLinear, Tensor], Tensor]
) -> None:
    layer, x = layer_and_input(sizes)
    ours, theirs = layer(x), other(layer, x)
    assert_close(ours, theirs)
    wrt = (x, layer.weight, layer.bias)
    direction = torch.randn_like(ours)
    for got, due in zip(
        torch.autograd.grad(ours, wrt, direction), torch.autograd.grad(theirs, wrt, direction), strict=True
    ):
        assert_close(got, due)


def test_parameters_have_the_shapes_of_a_convolution() -> None:
    layer, convolution = GroupedLinear(24, 36, 6), nn.Conv1d(24, 36, 1, groups=6)
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == {
        name: tensor.shape for name, tensor in convolution.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        ("gelu_new", lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        ("relu", lambda x: x.clamp(min=0)),
    ],
)
def test_activations_are_what_their_names_say(name: str, formula: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    assert_close(activation(SqueezeBertConfig(hidden_act=name))(x), formula(x))


def test_the_residual_passes_the_dropout_by() -> None:
    layer = ProjectAddNorm(16, 8, 2, dropout=1.0).double()
    nn.init.normal_(layer.conv1d.weight)
    x, residual = torch.randn(2, 3, 16, dtype=torch.double), torch.randn(2, 3, 8, dtype=torch.double)
    assert_close(layer.train()(x, residual), F.layer_norm(residual, (8,), eps=1e-12))
    assert_close(layer.eval()(x, residual), F.layer_norm(layer.conv1d(x) + residual, (8,), eps=1e-12))


def test_initial_weights_are_berts() -> None:
    model = nn.ModuleDict(
        {
            "grouped": GroupedLinear(256, 256, 4),
            "dense": nn.Linear(128, 128),
            "embedding": nn.Embedding(128, 128, padding_idx=3),
            "norm": nn.LayerNorm(128),
        }
    )
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    nn.init.ones_(model["norm"].weight)
    nn.init.zeros_(model["norm"].bias)
    initialize(model, SqueezeBertConfig(initializer_range=0.05))
    for name in ("grouped", "dense", "embedding"):
        weight = model[name].weight
        assert weight.mean().item() == pytest.approx(0, abs=0.002)
        assert weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert not model["grouped"].bias.any()
    assert not model["dense"].bias.any()
    assert not model["embedding"].weight[3].any()
    assert model["norm"].weight.eq(1).all()
