"""Weights of a model as dense matrices by group, in the form that the graphs of runtimes use."""

from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.layers import GroupedLinear, SqueezeBertLayer

Array = NDArray[np.float32]


class Blocks(NamedTuple):
    """A grouped linear layer as a product for each group: x[g] @ weight[g] + bias[g].

    weight: (groups, inputs, outputs).
    bias: (groups, outputs).
    """

    weight: Array
    bias: Array


def encoder_of(model: nn.Module) -> SqueezeBertModel:
    """Return the encoder of a model with a head, or the bare encoder itself."""
    encoder = getattr(model, "transformer", model)
    assert isinstance(encoder, SqueezeBertModel)
    return encoder


def attention_groups(config: SqueezeBertConfig) -> int:
    """Return the number of groups that hold whole heads with their queries, keys and values."""
    return gcd(config.q_groups, config.k_groups, config.v_groups, config.num_attention_heads)


def feed_forward_groups(config: SqueezeBertConfig) -> int:
    """Return the number of groups through which both feed-forward projections pass separately."""
    return gcd(config.intermediate_groups, config.output_groups)


def blocks(layer: GroupedLinear, groups: int) -> Blocks:
    """Return a layer in `groups` groups, which divide the layer's own.

    Where the layer has more groups, a block holds several of them on its diagonal.
    """
    weight = to_numpy(layer.weight)[..., 0]
    outputs, inputs = len(weight), weight.shape[1] * layer.groups
    together = layer.groups // groups
    own = weight.reshape(layer.groups, outputs // layer.groups, -1)

    dense = np.zeros((groups, inputs // groups, outputs // groups), np.float32)
    for index, block in enumerate(own):
        group, part = divmod(index, together)
        height, width = block.shape
        rows = slice(part * width, (part + 1) * width)
        columns = slice(part * height, (part + 1) * height)
        dense[group, rows, columns] = block.T
    return Blocks(dense, to_numpy(layer.bias).reshape(groups, -1))


def packed_attention(layer: SqueezeBertLayer, groups: int) -> Blocks:
    """Return one layer that computes each group's queries, keys and values, in this order."""
    attention = layer.attention
    parts = [blocks(part, groups) for part in (attention.query, attention.key, attention.value)]
    weight = np.concatenate([part.weight for part in parts], 2)
    return Blocks(weight, np.concatenate([part.bias for part in parts], 1))


def to_numpy(parameter: Tensor) -> Array:
    """Return a parameter as an array of fp32."""
    array: Array = parameter.detach().float().cpu().numpy()
    return array
