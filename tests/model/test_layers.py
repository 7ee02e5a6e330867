"""A grouped layer is torch's grouped convolution, and a dense layer whose weight is
block-diagonal.
"""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.library import opcheck
from torch.nn import functional as F
from torch.testing import assert_close

from examples import scaled
from sqzb.model import SqueezeBertConfig, grouped
from sqzb.model.layers import (
    GroupedLinear,
    ProjectAddNorm,
    SqueezeBertLayer,
    activation,
    attention,
    dropout,
    initialize,
)

# Groups, widths of a group before and after, batch, length.
sizes = st.tuples(*(st.integers(1, top) for top in (6, 5, 5, 4, 6)))


def layer_and_input(sizes: tuple[int, ...]) -> tuple[GroupedLinear, Tensor]:
    groups, before, after, batch, length = sizes
    layer = GroupedLinear(groups * before, groups * after, groups).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer, torch.randn(
        batch, length, groups * before, dtype=torch.float64, requires_grad=True
    )


def as_convolution(layer: GroupedLinear, x: Tensor) -> Tensor:
    return F.conv1d(x.transpose(1, 2), layer.weight, layer.bias, groups=layer.groups).transpose(
        1, 2
    )


def as_dense(layer: GroupedLinear, x: Tensor) -> Tensor:
    return F.linear(x, torch.block_diag(*layer.weight.squeeze(2).chunk(layer.groups)), layer.bias)


def ours(layer: GroupedLinear, x: Tensor) -> Tensor:
    y: Tensor = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], -1)


@settings(max_examples=scaled(30))
@given(sizes=sizes, other=st.sampled_from([as_convolution, as_dense]))
def test_a_grouped_layer_is_a_convolution_and_a_block_diagonal_dense_layer(
    sizes: tuple[int, ...], other: Callable[[GroupedLinear, Tensor], Tensor]
) -> None:
    layer, x = layer_and_input(sizes)
    result, theirs = ours(layer, x), other(layer, x)
    assert_close(result, theirs)
    wrt = (x, layer.weight, layer.bias)
    direction = torch.randn_like(result)
    for got, due in zip(
        torch.autograd.grad(result, wrt, direction),
        torch.autograd.grad(theirs, wrt, direction),
        strict=True,
    ):
        assert_close(got, due)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_operators_keep_torchs_rules(activation: str) -> None:
    """For autograd, and for torch.compile by shapes alone."""
    (first, _), (second, _) = layer_and_input((2, 3, 5, 1, 1)), layer_and_input((2, 5, 4, 1, 1))
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    weights = (first.weight, first.bias, second.weight, second.bias)
    opcheck(torch.ops.sqzb.grouped_linear, (x, first.weight, first.bias, 2))
    opcheck(torch.ops.sqzb.feed_forward, (x, *weights, 2, activation, True))

    def product(x: Tensor, weight: Tensor, bias: Tensor, second: Tensor, last: Tensor) -> Tensor:
        return grouped.feed_forward(x, weight, bias, second, last, 2, activation)

    assert torch.autograd.gradcheck(product, (x, *weights), check_undefined_grad=False)


def test_parameters_have_the_shapes_of_a_convolution() -> None:
    layer, convolution = GroupedLinear(24, 36, 6), nn.Conv1d(24, 36, 1, groups=6)
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == {
        name: tensor.shape for name, tensor in convolution.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        (
            "gelu_new",
            lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("relu", lambda x: x.clamp(min=0)),
    ],
)
def test_activations_are_what_their_names_say(
    name: Literal["gelu", "gelu_new", "relu"], formula: Callable[[Tensor], Tensor]
) -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    assert_close(activation(SqueezeBertConfig(hidden_act=name))(x), formula(x))


def test_the_residual_passes_the_dropout_by() -> None:
    layer = ProjectAddNorm(16, 8, 2, dropout=1.0).double()
    nn.init.normal_(layer.conv1d.weight)
    x, residual = torch.randn(6, 16, dtype=torch.double), torch.randn(6, 8, dtype=torch.double)
    projected = layer.conv1d(x)
    assert_close(layer.train()(projected, residual), F.layer_norm(residual, (8,), eps=1e-12))
    assert_close(
        layer.eval()(projected, residual), F.layer_norm(projected + residual, (8,), eps=1e-12)
    )


@pytest.mark.parametrize(
    "groups", [(4, 4, 4), (1, 2, 4), (8, 8, 8), (1, 1, 1)], ids=str
)  # 8 cut the 4 heads in two
def test_a_layer_is_torchs_attention_and_feed_forward_block(groups: tuple[int, int, int]) -> None:
    q, k, v = groups
    config = SqueezeBertConfig(
        hidden_size=16,
        num_attention_heads=4,
        intermediate_size=24,
        q_groups=q,
        k_groups=k,
        v_groups=v,
    )
    layer = SqueezeBertLayer(config).double().eval()
    initialize(layer, config.model_copy(update={"initializer_range": 0.5}))
    x, mask = (
        torch.randn(3, 5, 16, dtype=torch.double, requires_grad=True),
        torch.zeros(3, 1, 1, 5).double(),
    )
    mask[1, ..., 3:] = -3e38

    query, key, value = (
        as_dense(of, x).unflatten(2, (4, 4)).transpose(1, 2)
        for of in (layer.attention.query, layer.attention.key, layer.attention.value)
    )
    context = (
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    )
    attended = F.layer_norm(as_dense(layer.post_attention.conv1d, context) + x, (16,), eps=1e-12)
    middle = F.gelu(as_dense(layer.intermediate.conv1d, attended))
    due = F.layer_norm(as_dense(layer.output.conv1d, middle) + attended, (16,), eps=1e-12)
    assert_close(layer(x, mask), due)
    direction = torch.randn_like(due)
    wrt = (
        x,
        *(parameter for name, parameter in layer.named_parameters() if "layernorm" not in name),
    )
    got, expected = (torch.autograd.grad(y, wrt, direction) for y in (layer(x, mask), due))
    for ours_, theirs in zip(got, expected, strict=True):
        assert_close(ours_, theirs)
    with torch.no_grad():
        assert_close(layer(x, mask), due)


@given(st.floats(0.001, 0.999), st.integers(0, 2**32))
@settings(max_examples=scaled(15))
def test_dropout_drops_so_many_and_keeps_the_mean(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    n = 40_001  # no multiple of the draws in a random number
    x = torch.ones(n, requires_grad=True)
    y = dropout(x, p, training=True)
    kept = y != 0
    assert abs(int(kept.sum()) - n * (1 - p)) < 6 * (n * p * (1 - p)) ** 0.5 + 1
    assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - p)), rtol=0.01, atol=0)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)
    torch.manual_seed(seed)
    assert torch.equal(dropout(x, p, training=True), y)


def test_the_compiler_draws_the_same_and_for_each_dropout_anew() -> None:
    opcheck(torch.ops.sqzb.dropout_factor, (torch.randn(3, 5), 0.3, torch.tensor(3)))

    def twice(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)

    x, drawn = torch.ones(1000), []
    for form in (twice, torch.compile(twice, fullgraph=True)):
        torch.manual_seed(7)
        drawn.append(form(x))
    assert all(map(torch.equal, *drawn)) and not torch.equal(*drawn[0])


def test_neighbours_are_dropped_apart() -> None:
    dropped = (dropout(torch.ones(400_000), 0.5, training=True) == 0).double() - 0.5
    for distance in range(1, 9):
        assert (
            abs(float((dropped[:-distance] * dropped[distance:]).mean())) < 5 * 0.25 / 400_000**0.5
        )


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_all(p: float) -> None:
    x = torch.randn(100)
    assert torch.equal(dropout(x, p, training=True), x * (1 - p))
    assert torch.equal(dropout(x, 0.5, training=False), x)


def test_attention_with_and_without_gradients_is_torchs() -> None:
    query, key, value = (torch.randn(2, 3, 7, 4, dtype=torch.double) for _ in range(3))
    mask = torch.randn(2, 1, 1, 7, dtype=torch.double)
    due = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert_close(attention(query, key, value, mask, 0.0), due)
    with torch.no_grad():
        assert_close(attention(query, key, value, mask, 0.0), due)


def test_initial_weights_are_berts() -> None:
    grouped, dense = GroupedLinear(256, 256, 4), nn.Linear(128, 128)
    embedding, norm = nn.Embedding(128, 128, padding_idx=3), nn.LayerNorm(128)
    model = nn.ModuleList([grouped, dense, embedding, norm])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    initialize(model, SqueezeBertConfig(initializer_range=0.05))
    for weight in (grouped.weight, dense.weight, embedding.weight):
        assert weight.mean().item() == pytest.approx(0, abs=0.002)
        assert weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert not grouped.bias.any()
    assert not dense.bias.any()
    assert not embedding.weight[3].any()
    assert norm.weight.eq(1).all()
