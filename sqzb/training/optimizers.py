"""The optimizer of a recipe, its parameter groups, and its learning rate."""

from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim import Optimizer as TorchOptimizer

from sqzb.model.layers import GroupedLinear
from sqzb.recipe import Optimizer
from sqzb.training.lamb import Lamb
from sqzb.training.muon import Muon
from sqzb.training.schedules import Schedule


def make_optimizer(settings: Optimizer, model: nn.Module) -> TorchOptimizer:
    """Return the recipe's optimizer for all parameters of the model."""
    groups = parameter_groups(model, settings.weight_decay)
    if settings.name == "lamb":
        return Lamb(groups, settings.lr, settings.betas, settings.eps)
    if settings.name == "adamw":
        return AdamW(groups, settings.lr, settings.betas, settings.eps, fused=True)
    matrices = matrix_groups(model, settings.weight_decay)
    taken = {parameter for group in matrices for parameter in group["params"]}
    for group in groups:
        group["params"] = [one for one in group["params"] if one not in taken]
        group["lr_factor"] = settings.rest_lr / settings.lr
    rest = AdamW(groups, settings.rest_lr, settings.betas, settings.eps, fused=True)
    return Muon(matrices, rest, settings.lr, settings.momentum)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices, decayed and adapted; LayerNorm and biases, neither.

    Parameters are told apart by their shape, because the published names spell LayerNorm in two
    ways.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]


def matrix_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights of the encoder's grouped layers, those of equal shape in one group.

    `blocks` is the number of matrices in a weight: each group of a grouped layer is a matrix of its
    own. Embeddings, heads and the pooler are no such layers.
    """
    by_shape: dict[tuple[int, ...], dict[str, Any]] = {}
    for layer in model.modules():
        if isinstance(layer, GroupedLinear):
            shape = (layer.groups, *layer.weight.shape)
            empty = {"params": [], "blocks": layer.groups, "weight_decay": weight_decay}
            by_shape.setdefault(shape, empty)["params"].append(layer.weight)
    return list(by_shape.values())


def schedule_of(settings: Optimizer) -> Schedule:
    """Return the recipe's learning rate."""
    return Schedule(
        settings.lr,
        settings.warmup,
        settings.schedule,
        settings.decay_power,
        settings.cooldown,
        settings.floor,
    )


def learning_rate(step: int, steps: int, peak: float, warmup: float, decay_power: float) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`.

    The rate rises linearly over the fraction `warmup` of the steps, then falls to zero as a
    polynomial, without a jump in between.
    """
    return Schedule(peak, warmup, decay_power=decay_power).rate(step, steps)
