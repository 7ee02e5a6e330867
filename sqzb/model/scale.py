"""The scale of a regression: a model learns (label - mean) / std, and is saved in the labels' unit.

In training, and in checkpoints, a model's numbers are on its own scale; config.json says so with
`label_scale`. When the finished model is written, the scale becomes part of the last layer's
weights, so that any tool gets numbers in the unit of the labels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sqzb.data.dataset import Kind, Number
from sqzb.errors import UserError
from sqzb.model.checkpoint import StoredModel


def has_scale(kind: Kind) -> bool:
    """Return whether a model learns other numbers than the labels."""
    return isinstance(kind, Number) and (kind.mean, kind.std) != (0.0, 1.0)


def to_scale(kind: Kind, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return numbers in the labels' unit as the model learns them; others are left as they are."""
    if not isinstance(kind, Number) or not has_scale(kind):
        return values
    return ((values.astype(np.float64) - kind.mean) / kind.std).astype(np.float32)


def to_unit(kind: Kind, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the numbers of a model in training in the labels' unit; other values are unchanged."""
    if not isinstance(kind, Number) or not has_scale(kind):
        return values
    return (values.astype(np.float64) * kind.std + kind.mean).astype(np.float32)


def put_on_scale(model: StoredModel, kind: Number, source: object) -> None:
    """Note in the model's configuration that it has numbers on a scale.

    source: of the model, for messages.

    Raises:
        UserError: The model's last layer cannot take the scale up when the model is saved.
    """
    if not has_scale(kind):
        return
    if _output_layer(model) is None:
        raise UserError(
            f"The model in {source} cannot learn numbers on a scale of their own: its last layer "
            "has no bias. Give another --model."
        )
    model.update_config(label_scale=[kind.mean, kind.std])


def take_up_scale(model: StoredModel) -> None:
    """Make the scale that the configuration names a part of the weights, if it names one."""
    scale = getattr(model.config, "label_scale", None)
    layer = _output_layer(model)
    if scale is None or layer is None:
        return
    mean, std = scale
    with torch.no_grad():
        layer.weight.copy_(layer.weight.double() * std)
        layer.bias.copy_(layer.bias.double() * std + mean)
    model.update_config(label_scale=None)


@contextmanager
def scale_taken_up(model: StoredModel) -> Iterator[None]:
    """Let the model return numbers in the labels' unit within the block; restore it afterwards."""
    scale = getattr(model.config, "label_scale", None)
    layer = _output_layer(model)
    if scale is None or layer is None:
        yield
        return
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    take_up_scale(model)
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(before[0])
            layer.bias.copy_(before[1])
        model.update_config(label_scale=scale)


def _output_layer(model: nn.Module) -> nn.Linear | None:
    """Return the last linear layer, if it gives one number and has a bias."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    last = layers[-1] if layers else None
    fits = last is not None and last.out_features == 1 and last.bias is not None
    return last if fits else None
