"""Muon against torch's own, matrix by matrix, and beside AdamW in one optimizer."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.layers import GroupedLinear
from sqzb.recipe import Optimizer
from sqzb.training.muon import MOMENT, Muon, orthogonal
from sqzb.training.optimizers import make_optimizer, matrix_groups

SETTINGS = Optimizer(name="muon", lr=0.02, rest_lr=1e-3, weight_decay=0.1)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([4, 12, 32]),
    columns=st.sampled_from([4, 12, 32]),
    n=st.integers(1, 3),
)
def test_directions_are_nearly_orthogonal(seed: int, rows: int, columns: int, n: int) -> None:
    """By torch's singular values: the same vectors, and all values near 1, but the smallest."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(n, rows, columns, generator=generator, dtype=torch.float64)
    for matrix, direction in zip(matrices, orthogonal(matrices), strict=True):
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
        image = u.mT @ direction @ v.mT
        diagonal = image.diagonal()
        torch.testing.assert_close(image, diagonal.diag(), rtol=0, atol=1e-9)
        large = values > 0.05 * values.norm()
        assert ((diagonal[large] > 0.5) & (diagonal[large] < 1.3)).all()


def test_a_matrix_of_zeros_has_no_direction() -> None:
    assert (orthogonal(torch.zeros(2, 4, 3)) == 0).all()


def make_layers() -> nn.ModuleList:
    torch.manual_seed(0)
    layers = nn.ModuleList([GroupedLinear(32, 64, 4), GroupedLinear(32, 64, 4)])
    layers.extend([GroupedLinear(64, 32, 4), GroupedLinear(32, 32, 1), nn.LayerNorm(32)])
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layers


def pieces(layer: GroupedLinear, tensor: Tensor) -> list[Tensor]:
    """Return the matrix of each group."""
    return [part[..., 0] for part in tensor.detach().chunk(layer.groups)]


def test_each_group_takes_the_step_of_torchs_muon() -> None:
    """torch's class computes in bf16, so the directions agree in two digits."""
    layers = make_layers()
    optimizer = make_optimizer(SETTINGS, layers)
    grouped = [layer for layer in layers if isinstance(layer, GroupedLinear)]
    copies = [[nn.Parameter(part.clone()) for part in pieces(one, one.weight)] for one in grouped]
    theirs = torch.optim.Muon([part for parts in copies for part in parts], lr=0.02)
    for seed in range(4):
        torch.manual_seed(seed)
        for layer, parts in zip(grouped, copies, strict=True):
            layer.weight.grad = torch.randn_like(layer.weight)
            for part, gradient in zip(parts, pieces(layer, layer.weight.grad), strict=True):
                part.grad = gradient.clone()
        before = [layer.weight.detach().clone() for layer in grouped]
        optimizer.step()
        theirs.step()
        for layer, parts, old in zip(grouped, copies, before, strict=True):
            ours = [*zip(pieces(layer, layer.weight), pieces(layer, old), parts, strict=True)]
            for new, was, part in ours:
                moved = new - was * (1 - 0.02 * 0.1)
                expected = part.detach() - was * (1 - 0.02 * 0.1)
                assert (moved - expected).norm() < 0.03 * expected.norm()
                part.data.copy_(new)  # so that bf16's differences do not add up


def test_moments_are_those_of_torchs_muon() -> None:
    layer = GroupedLinear(8, 8, 1)
    nn.init.normal_(layer.weight)
    matrix = nn.Parameter(layer.weight.detach()[..., 0].clone())
    optimizer, theirs = make_optimizer(SETTINGS, layer), torch.optim.Muon([matrix], lr=0.02)
    for seed in range(3):
        torch.manual_seed(seed)
        layer.weight.grad = torch.randn_like(layer.weight)
        matrix.grad = layer.weight.grad[..., 0].clone()
        optimizer.step()
        theirs.step()
    moment = optimizer.state[layer.weight][MOMENT][..., 0]
    torch.testing.assert_close(moment, theirs.state[matrix][MOMENT])


def test_the_rest_takes_the_step_of_adamw(tiny_config: SqueezeBertConfig) -> None:
    models = []
    for is_muon in (True, False):
        torch.manual_seed(0)
        model = SqueezeBertForPreTraining(tiny_config)
        optimizer: torch.optim.Optimizer
        if is_muon:
            optimizer = make_optimizer(SETTINGS, model)
        else:
            adamw = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1}
            optimizer = make_optimizer(Optimizer.model_validate(adamw), model)
        for seed in range(3):
            torch.manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        models.append(dict(model.named_parameters()))
    for name, parameter in models[0].items():
        is_matrix = "encoder" in name and name.endswith("weight") and parameter.ndim > 1
        assert torch.equal(parameter, models[1][name]) == (not is_matrix), name


def test_every_parameter_is_in_one_group(tiny_config: SqueezeBertConfig) -> None:
    model = SqueezeBertForPreTraining(tiny_config)
    optimizer = make_optimizer(SETTINGS, model)
    grouped = [one for group in optimizer.param_groups for one in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
    matrices = [one for group in matrix_groups(model, 0.1) for one in group["params"]]
    layers = [layer for layer in model.modules() if isinstance(layer, GroupedLinear)]
    assert set(matrices) == {layer.weight for layer in layers} and len(layers) == 12
    for group in optimizer.param_groups:
        assert all((group["weight_decay"] == 0.1) == (one.ndim > 1) for one in group["params"])
    factors = {group.get("lr_factor", 1.0) for group in optimizer.param_groups}
    assert factors == {1.0, 1e-3 / 0.02}


def test_a_parameter_without_a_gradient_is_left_alone(tiny_config: SqueezeBertConfig) -> None:
    model = SqueezeBertForPreTraining(tiny_config)
    optimizer = make_optimizer(SETTINGS, model)
    used = model.get_parameter("transformer.encoder.layers.0.attention.query.weight")
    used.grad = torch.ones_like(used)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizer.step()
    changed = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert changed == {"transformer.encoder.layers.0.attention.query.weight"}


def state(optimizer: Muon, layers: nn.Module) -> Iterator[Tensor]:
    for parameter in layers.parameters():
        yield parameter.detach().clone()
        yield from (value.clone() for value in optimizer.state[parameter].values())


def test_an_update_that_must_not_happen_changes_nothing() -> None:
    layers = make_layers()
    optimizer = make_optimizer(SETTINGS, layers)
    assert isinstance(optimizer, Muon)

    def step(is_bad: bool) -> list[Tensor]:
        for parameter in layers.parameters():
            parameter.grad = torch.full_like(parameter, 0.0 if is_bad else 1.0)
        optimizer.found_inf = torch.tensor(float(is_bad))
        optimizer.step()
        return list(state(optimizer, layers))

    before, after, later = step(False), step(True), step(False)
    assert all(map(torch.equal, before, after)) and not any(map(torch.equal, before, later))


def test_a_rate_on_the_device_is_the_same_rate() -> None:
    """As a CUDA graph reads it."""
    steps = []
    for on_device in (False, True):
        layers = make_layers()
        optimizer = make_optimizer(SETTINGS, layers)
        assert isinstance(optimizer, Muon)
        for group in optimizer.param_groups:
            if on_device:
                group["lr"] = torch.tensor(group["lr"])
        for parameter in layers.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        steps.append(list(state(optimizer, layers)))
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other)


def test_a_closure_gives_the_loss() -> None:
    layers = make_layers()
    assert make_optimizer(SETTINGS, layers).step(lambda: 3.0) == 3.0


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_other_optimizers_have_no_factors(name: str, tiny_config: SqueezeBertConfig) -> None:
    settings = Optimizer.model_validate({"name": name})
    optimizer = make_optimizer(settings, SqueezeBertForPreTraining(tiny_config))
    assert not any("lr_factor" in group for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["betas"] == settings.betas
