"""SqueezeBERT as a graph for ONNX Runtime, built operator by operator.

The form follows the runtime. A group's heads, queries, keys and values are one Attention operator,
because a grouped convolution and single heads are slow there. A sum has three operands before
LayerNormalization, because the runtime would fuse a sum of two into SkipLayerNormalization, which
is several times slower. Batch and length are dynamic.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sqzb.export.heads import ENCODER, INPUTS, MLM, OUTPUTS, TOKENS, VECTORS, Head
from sqzb.export.onnx_scales import DYNAMIC, Scale
from sqzb.export.quantized import columns_to_int8, rows_to_int8
from sqzb.export.weights import (
    attention_groups,
    blocks,
    encoder_of,
    feed_forward_groups,
    packed_attention,
    to_numpy,
)
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.layers import SqueezeBertLayer

OPSET, IR = 17, 8  # the first version with LayerNormalization, which old runtimes read too
OF_RUNTIME = "com.microsoft"  # the domain of operators that ONNX Runtime adds
LARGEST = 2**31 - 2**24  # bytes of weights that one file of this format holds


class Graph:
    """A graph under construction: nodes in order, and constants.

    int8: whether products are computed in 8-bit integers.
    scales: of the activations in the order of `quantize`; None: of each batch (dynamic).
    """

    def __init__(self, int8: bool = False, scales: Sequence[Scale] | None = None) -> None:
        self.int8 = int8
        self.scales = None if scales is None else iter(scales)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its output, or a list of `count` names."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        outputs = [f"{name}:{index}" for index in range(count)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs[0] if count == 1 else outputs

    def constant(self, value: NDArray[Any]) -> str:
        """Store an array; return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """Store a list of int64; return its name."""
        return self.constant(np.array(values, np.int64))

    def split(self, x: str, parts: int) -> list[str]:
        """Divide the last axis into equal parts."""
        if parts == 1:
            return [x]
        names: list[str] = self.add("Split", x, count=parts, axis=-1)
        return names

    def join(self, parts: Sequence[str]) -> str:
        """Put the parts beside each other on the last axis."""
        if len(parts) == 1:
            return parts[0]
        name: str = self.add("Concat", *parts, axis=-1)
        return name

    def norm(self, x: str, layer: nn.LayerNorm) -> str:
        """Normalise the last axis."""
        weight, bias = self.constant(to_numpy(layer.weight)), self.constant(to_numpy(layer.bias))
        name: str = self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)
        return name

    def linear(self, x: str, layer: nn.Linear) -> str:
        """Apply a dense layer in fp32, as heads have it."""
        product = self.add("MatMul", x, self.constant(to_numpy(layer.weight).T))
        name: str = self.add("Add", product, self.constant(to_numpy(layer.bias)))
        return name

    def quantize(self, x: str) -> tuple[str, str, str]:
        """Return activations as unsigned 8-bit integers, their scale and their zero."""
        if self.scales is None:
            integers, scale, zero = self.add(DYNAMIC, x, count=3)
            return integers, scale, zero
        static = next(self.scales)
        scale = self.constant(np.array(static.scale, np.float32))
        zero = self.constant(np.array(static.zero, np.uint8))
        return self.add("QuantizeLinear", x, scale, zero), scale, zero

    def products(self, x: str, weight: NDArray[np.float32]) -> list[str]:
        """Return x[g] @ weight[g] for each group; weight: (groups, inputs, outputs)."""
        if not self.int8:
            parts = self.split(x, len(weight))
            return [
                self.add("MatMul", part, self.constant(block))
                for part, block in zip(parts, weight, strict=True)
            ]
        integers, scale, zero = self.quantize(x)
        parts = self.split(integers, len(weight))
        return [
            self._integer_product(part, scale, zero, block)
            for part, block in zip(parts, weight, strict=True)
        ]

    def _integer_product(self, x: str, scale: str, zero: str, block: NDArray[np.float32]) -> str:
        values, scales = columns_to_int8(block)
        name: str = self.add(
            "MatMulIntegerToFloat",
            *(x, self.constant(values), scale, self.constant(scales), zero),
            domain=OF_RUNTIME,
        )
        return name


def build(
    model: nn.Module, head: Head, int8: bool = False, scales: Sequence[Scale] | None = None
) -> Any:
    """Return the model as an ONNX ModelProto.

    Inputs are int64 (batch, length): input_ids, attention_mask, token_type_ids. The head's outputs
    are those of `heads.OUTPUTS`, in fp32.

    model: a SqueezeBERT of sqzb with the head.
    int8: compute products of the layers in 8-bit integers, and store the embeddings in them.
    scales: of the activations in int8, from `onnx_scales.calibrate`; None: of each batch.
    """
    from onnx import TensorProto, helper

    graph = Graph(int8, scales)
    encoder = encoder_of(model)
    config = encoder.config
    words = _word_embeddings(graph, to_numpy(encoder.embeddings.word_embeddings.weight))
    x = _embeddings(graph, encoder, words)
    mask = graph.add("Cast", "attention_mask", to=TensorProto.INT32)
    for layer in encoder.encoder.layers:
        assert isinstance(layer, SqueezeBertLayer)
        x = _layer(graph, config, layer, x, mask)
    outputs = _head(graph, model, head, x, words)

    values = []
    for given, (name, axes) in zip(outputs, OUTPUTS[head].items(), strict=True):
        graph.nodes.append(helper.make_node("Identity", [given], [name]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [*axes, None]))
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS]
    return helper.make_model(
        helper.make_graph(graph.nodes, "squeezebert", inputs, values, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(OF_RUNTIME, 1)],
        ir_version=IR,
        producer_name="sqzb",
    )


def _word_embeddings(graph: Graph, weight: NDArray[np.float32]) -> tuple[str, str | None]:
    """Store the word embeddings; return their name, and that of the rows' scales in int8."""
    if not graph.int8:
        return graph.constant(weight), None
    values, scales = rows_to_int8(weight)
    return graph.constant(values), graph.constant(scales)


def _embeddings(graph: Graph, encoder: SqueezeBertModel, words: tuple[str, str | None]) -> str:
    parts = encoder.embeddings
    weight, scales = words
    word = graph.add("Gather", weight, "input_ids")
    if scales is not None:
        scale = graph.add("Unsqueeze", graph.add("Gather", scales, "input_ids"), graph.integers(-1))
        word = graph.add("Mul", graph.add("Cast", word, to=1), scale)
    zero, one = graph.integers(0), graph.integers(1)
    length = graph.add("Slice", graph.add("Shape", "input_ids"), one, graph.integers(2))
    positions = graph.constant(to_numpy(parts.position_embeddings.weight))
    position = graph.add("Slice", positions, zero, length, zero)
    types = graph.constant(to_numpy(parts.token_type_embeddings.weight))
    kind = graph.add("Gather", types, "token_type_ids")
    return graph.norm(graph.add("Sum", word, kind, position), parts.LayerNorm)


def _layer(
    graph: Graph, config: SqueezeBertConfig, layer: SqueezeBertLayer, x: str, mask: str
) -> str:
    context = _attention(graph, config, layer, x, mask)
    post = layer.post_attention
    post_blocks = blocks(post.conv1d, post.conv1d.groups)
    projected = graph.join(graph.products(context, post_blocks.weight))
    bias = graph.constant(post_blocks.bias.reshape(-1))
    attended = graph.norm(graph.add("Sum", projected, bias, x), post.layernorm)

    groups = feed_forward_groups(config)
    wide, narrow = (blocks(part.conv1d, groups) for part in (layer.intermediate, layer.output))
    inner = graph.products(attended, wide.weight)
    parts = []
    for index, product in enumerate(inner):
        activated = _activate(graph, product, wide.bias[index], config.hidden_act)
        parts += graph.products(activated, narrow.weight[index : index + 1])
    bias = graph.constant(narrow.bias.reshape(-1))
    total = graph.add("Sum", graph.join(parts), bias, attended)
    return graph.norm(total, layer.output.layernorm)


def _attention(
    graph: Graph, config: SqueezeBertConfig, layer: SqueezeBertLayer, x: str, mask: str
) -> str:
    """Compute each group's heads by one operator, and join their contexts."""
    groups = attention_groups(config)
    packed = packed_attention(layer, groups)
    heads = config.num_attention_heads // groups
    scale: str | None = None
    zero: str | None = None
    if graph.int8:
        x, scale, zero = graph.quantize(x)
    contexts = []
    for index, part in enumerate(graph.split(x, groups)):
        bias = graph.constant(packed.bias[index])
        if scale is None or zero is None:
            weight = graph.constant(packed.weight[index])
            inputs, operator = [part, weight, bias, mask], "Attention"
        else:
            values, scales = columns_to_int8(packed.weight[index])
            zeros = graph.constant(np.zeros(len(scales), np.int8))
            names = graph.constant(values), graph.constant(scales)
            inputs = [part, names[0], bias, scale, names[1], mask, zero, zeros]
            operator = "QAttention"
        contexts.append(graph.add(operator, *inputs, num_heads=heads, domain=OF_RUNTIME))
    return graph.join(contexts)


def _activate(graph: Graph, x: str, bias: NDArray[np.float32], name: str) -> str:
    """Add the bias and apply the activation `hidden_act`."""
    given = graph.constant(bias)
    if name == "relu":
        return str(graph.add("Relu", graph.add("Add", x, given)))
    operator = "BiasGelu" if name == "gelu" else "FastGelu"
    return str(graph.add(operator, x, given, domain=OF_RUNTIME))


def _head(graph: Graph, model: Any, head: Head, x: str, words: tuple[str, str | None]) -> list[str]:
    """Return the names of the head's outputs, in the order of `OUTPUTS`."""
    if head == VECTORS:
        return [_mean(graph, x)]
    if head == MLM:
        return [_mlm(graph, model, x, words)]
    if head == TOKENS:
        return [graph.linear(x, model.classifier)]
    first = graph.add("Gather", x, graph.constant(np.array(0, np.int64)), axis=1)
    pooled = graph.add("Tanh", graph.linear(first, encoder_of(model).pooler.dense))
    if head == ENCODER:
        return [x, pooled]
    return [graph.linear(pooled, model.classifier)]


def _mean(graph: Graph, x: str) -> str:
    """Return the mean of the tokens' hidden states, without padding."""
    mask = graph.add("Cast", "attention_mask", to=1)
    weights = graph.add("Unsqueeze", mask, graph.integers(-1))
    total = graph.add("ReduceSum", graph.add("Mul", x, weights), graph.integers(1), keepdims=0)
    count = graph.add("ReduceSum", weights, graph.integers(1), keepdims=0)
    return str(graph.add("Div", total, count))


def _mlm(graph: Graph, model: Any, x: str, words: tuple[str, str | None]) -> str:
    """Return the logits over the vocabulary, by the embedding matrix that the input uses too."""
    predictions = model.cls.predictions
    dense = predictions.transform.dense
    product = graph.add("MatMul", x, graph.constant(to_numpy(dense.weight).T))
    hidden_act = encoder_of(model).config.hidden_act
    activated = _activate(graph, product, to_numpy(dense.bias), hidden_act)
    x = graph.norm(activated, predictions.transform.LayerNorm)
    weight, scales = words
    transposed = graph.add("Transpose", weight, perm=[1, 0])
    if scales is None:
        logits = graph.add("MatMul", x, transposed)
    else:
        integers, scale, zero = graph.quantize(x)
        names = (integers, transposed, scale, scales, zero)
        logits = graph.add("MatMulIntegerToFloat", *names, domain=OF_RUNTIME)
    return str(graph.add("Add", logits, graph.constant(to_numpy(predictions.bias))))


def write(proto: Any, path: Path) -> None:
    """Write the model; weights over the format's limit go to a file beside it."""
    import onnx

    # The format's own count of bytes fails over the limit.
    is_large = sum(len(constant.raw_data) for constant in proto.graph.initializer) > LARGEST
    onnx.save(proto, path, save_as_external_data=is_large, location=f"{path.name}.data")
