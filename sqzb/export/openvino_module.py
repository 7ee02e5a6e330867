"""SqueezeBERT as a torch module from which OpenVINO makes its own best graph.

A grouped convolution with a fused activation is OpenVINO's best kernel for a grouped layer, so the
layers are convolutions over (batch, width, length). One convolution computes the queries, keys and
values of a group.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.export.heads import OUTPUTS, Head
from sqzb.export.torch_form import TorchForm, layers_of
from sqzb.export.weights import Blocks, attention_groups, blocks, encoder_of, feed_forward_groups
from sqzb.export.weights import packed_attention as packed_layer
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.layers import SqueezeBertLayer, activation


class Convolution(nn.Module):
    """A grouped linear layer as a convolution of width 1."""

    weight: Tensor
    bias: Tensor

    def __init__(self, parts: Blocks) -> None:
        super().__init__()
        self.groups = len(parts.weight)
        rows = np.concatenate([block.T for block in parts.weight])
        self.register_buffer("weight", torch.from_numpy(rows[..., None].copy()))
        self.register_buffer("bias", torch.from_numpy(parts.bias.reshape(-1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, length) to (batch, outputs, length)."""
        return F.conv1d(x, self.weight, self.bias, groups=self.groups)


class Layer(nn.Module):
    """A layer on (batch, width, length)."""

    def __init__(self, layer: SqueezeBertLayer, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.groups = attention_groups(config)
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.packed = Convolution(packed_layer(layer, self.groups))
        post = layer.post_attention.conv1d
        self.post_attention = Convolution(blocks(post, post.groups))
        groups = feed_forward_groups(config)
        self.intermediate = Convolution(blocks(layer.intermediate.conv1d, groups))
        self.output = Convolution(blocks(layer.output.conv1d, groups))
        self.activation = activation(config)
        self.norms = nn.ModuleList([layer.post_attention.layernorm, layer.output.layernorm])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, width, length) to the same shape; mask: (batch, 1, 1, length), added."""
        attended = self._norm(0, self.post_attention(self._attention(x, mask)) + x)
        inner = self.activation(self.intermediate(attended))
        return self._norm(1, self.output(inner) + attended)

    def _attention(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, width, length = x.shape
        packed = self.packed(x).view(batch, self.groups, 3, -1, self.head_width, length)
        by_head = []
        for part in range(3):
            heads = packed[:, :, part].reshape(batch, self.heads, self.head_width, length)
            by_head.append(heads.transpose(2, 3))
        query, key, value = by_head
        context = F.scaled_dot_product_attention(query, key, value, mask)
        return context.transpose(2, 3).reshape(batch, width, length)

    def _norm(self, index: int, x: Tensor) -> Tensor:
        normed: Tensor = self.norms[index](x.transpose(1, 2))
        return normed.transpose(1, 2)


class Layers(nn.Module):
    """All layers; the layout changes only before the first and after the last of them."""

    def __init__(self, model: nn.Module, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(layer, config) for layer in layers_of(model))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape; mask: (batch, length), added."""
        x, mask = x.transpose(1, 2), mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x.transpose(1, 2)


@torch.no_grad()
def build(model: nn.Module, head: Head) -> Any:
    """Return the model as an openvino.Model with dynamic batch and length.

    Inputs are int64 (batch, length): input_ids, attention_mask, token_type_ids. The outputs are
    those of `heads.OUTPUTS`, in fp32.
    """
    # Not openvino.convert_model, which takes several times as long.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    form = TorchForm(model, head, Layers(model, encoder_of(model).config)).eval()
    ids = torch.zeros(2, 7, dtype=torch.int64)
    example = (ids, torch.ones_like(ids), ids)
    traced = torch.jit.trace(form, example, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example)
    converted = frontend.convert(frontend.load(decoder))
    for output, name in zip(converted.outputs, OUTPUTS[head], strict=True):
        output.get_tensor().set_names({name})
    return converted


def write(converted: Any, path: Path) -> None:
    """Write the model: operators to `path`, weights in fp32 to a .bin file beside it."""
    import openvino

    openvino.save_model(converted, path, compress_to_fp16=False)
