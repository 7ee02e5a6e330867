"""SqueezeBERT as a torch module from which ExecuTorch makes a program for XNNPACK.

XNNPACK's grouped convolution is slow, so each group is a linear layer of its own. A call takes one
text: XNNPACK takes no reshape with two dynamic sizes, and the length is one.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.export.heads import Head
from sqzb.export.runtimes import quiet
from sqzb.export.torch_form import TorchForm, layers_of
from sqzb.export.weights import (
    Array,
    Blocks,
    blocks,
    encoder_of,
    feed_forward_groups,
)
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.layers import SqueezeBertLayer, activation

SHORTEST = 2  # tokens of an empty text: [CLS] and [SEP]


class Linear(nn.Module):
    """A linear layer; weight: (inputs, outputs)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Array, bias: Array) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight.T.copy()))
        self.register_buffer("bias", torch.from_numpy(bias.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, inputs) to (batch, length, outputs)."""
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """All heads of a text."""

    def __init__(self, layer: SqueezeBertLayer, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.width = config.hidden_size // self.heads
        attention = layer.attention
        # The scale of the scores is a factor of the query.
        self.query = _linears(blocks(attention.query, attention.query.groups), self.width**-0.5)
        self.key = _linears(blocks(attention.key, attention.key.groups))
        self.value = _linears(blocks(attention.value, attention.value.groups))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (1, length, width) to the same shape; mask: (1, 1, length), added to the scores."""
        by_head = []
        parts: list[Tensor] = []
        for layers in (self.query, self.key, self.value):
            if len(parts) != len(layers):
                parts = _split(x, len(layers))
            by_head.append(_apply(layers, parts).view(-1, self.heads, self.width))
        query, key, value = by_head
        scores = torch.bmm(query.permute(1, 0, 2), key.permute(1, 2, 0)) + mask
        context = torch.bmm(scores.softmax(-1), value.permute(1, 0, 2))
        return context.permute(1, 0, 2).contiguous().view(1, -1, self.heads * self.width)


class Layer(nn.Module):
    """A layer on (1, length, width)."""

    def __init__(self, layer: SqueezeBertLayer, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.attention = Attention(layer, config)
        post = layer.post_attention.conv1d
        self.post_attention = _linears(blocks(post, post.groups))
        groups = feed_forward_groups(config)
        self.intermediate = _linears(blocks(layer.intermediate.conv1d, groups))
        self.output = _linears(blocks(layer.output.conv1d, groups))
        self.activation = activation(config)
        self.norms = nn.ModuleList([layer.post_attention.layernorm, layer.output.layernorm])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (1, length, width) to the same shape; mask: (1, 1, length), added."""
        context = self.attention(x, mask)
        parts = _split(context, len(self.post_attention))
        attended = self.norms[0](_apply(self.post_attention, parts) + x)

        outputs = []
        parts = _split(attended, len(self.intermediate))
        for part, wide, narrow in zip(parts, self.intermediate, self.output, strict=True):
            outputs.append(narrow(self.activation(wide(part))))
        normed: Tensor = self.norms[1](_join(outputs) + attended)
        return normed


def _apply(layers: nn.ModuleList, parts: list[Tensor]) -> Tensor:
    """Apply each group's layer to its part, and join the results."""
    return _join([layer(part) for layer, part in zip(layers, parts, strict=True)])


def _linears(parts: Blocks, factor: float = 1.0) -> nn.ModuleList:
    """Return a layer for each group, whose outputs are multiplied by a factor."""
    return nn.ModuleList(map(Linear, parts.weight * factor, parts.bias * factor))


def _split(x: Tensor, parts: int) -> list[Tensor]:
    """Divide the last axis into equal parts."""
    return [x] if parts == 1 else list(x.chunk(parts, -1))


def _join(parts: list[Tensor]) -> Tensor:
    """Put the parts beside each other on the last axis."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class Layers(nn.Module):
    """All layers."""

    def __init__(self, model: nn.Module, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(layer, config) for layer in layers_of(model))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape; mask: (batch, length), added."""
        mask = mask[:, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x


@torch.no_grad()
def build(model: nn.Module, head: Head, max_length: int) -> Any:
    """Return the model as an ExecutorchProgramManager.

    Inputs are int64 (1, length): input_ids, attention_mask, token_type_ids, of at most `max_length`
    tokens. The outputs are those of `heads.OUTPUTS`, in fp32.
    """
    form = TorchForm(model, head, Layers(model, encoder_of(model).config)).eval()
    ids = torch.zeros(1, min(7, max_length), dtype=torch.int64)
    # Three tensors: torch.export takes a tensor that is given twice for one input.
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    sizes = {1: torch.export.Dim("length", min=SHORTEST, max=max_length)}
    with quiet():
        from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
        from executorch.backends.xnnpack.partition.config.generic_node_configs import GeluConfig
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        kinds = list(ALL_PARTITIONER_CONFIGS)
        if encoder_of(model).config.hidden_act == "gelu_new":
            kinds.remove(GeluConfig)  # XNNPACK's is the exact gelu, whatever its approximation
        exported = torch.export.export(form, example, dynamic_shapes=(sizes, sizes, sizes))
        lowered = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner(kinds)],
            # The result is compared with the model, so the check of each pass only costs time.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return lowered.to_executorch()


def write(program: Any, path: Path) -> None:
    """Write the program with its weights."""
    with path.open("wb") as file:
        program.write_to_file(file)
