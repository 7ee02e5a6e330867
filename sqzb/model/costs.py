"""FLOPs, parameters and memory traffic of a SqueezeBERT by part, computed without torch.

Every position counts, padding included, because the model computes it like the others.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqzb.model.config import SqueezeBertConfig

# FLOPs of a training step in units of the forward's: the backward computes two products for each
# product of the forward, one for each factor's gradient.
TRAINING = 3


class Cost(NamedTuple):
    """The cost of a part.

    flops: floating-point operations of a forward, two for each multiply-accumulate of its matrix
    products.
    parameters: number of parameters.
    bytes: bytes of activations that a forward reads and writes.
    """

    flops: int
    parameters: int
    bytes: int


def costs(
    config: SqueezeBertConfig,
    batch: int,
    length: int,
    predictions: int = 0,
    labels: int = 0,
    number_bytes: int = 4,
    tags: int = 0,
) -> dict[str, Cost]:
    """Return the cost of a forward on (batch, length) positions by part, summed over layers.

    predictions: positions of each sequence at which the MLM head runs; 0 for a model without it.
    labels: classes of the head on the pooler (2 for SOP); 0 for none.
    number_bytes: bytes of an activation.
    tags: classes of the head on every position; 0 for none.
    """
    positions, predicted = batch * length, batch * predictions
    pairs = positions * length
    return costs_of_rows(config, batch, positions, pairs, predicted, labels, number_bytes, tags)


def costs_of_rows(
    config: SqueezeBertConfig,
    batch: int,
    positions: int,
    pairs: int,
    predicted: int = 0,
    labels: int = 0,
    number_bytes: int = 4,
    tags: int = 0,
) -> dict[str, Cost]:
    """Return the cost of a forward by part, where sequences may differ in length.

    positions: rows of all `batch` sequences.
    pairs: pairs of a query and a key, summed over sequences.
    predicted: rows at which the MLM head runs.
    The other arguments are as in `costs`.

    The bytes are those of an implementation without fused kernels: each operation reads its input
    activations once and writes its result once. Operations are a lookup, a linear layer, a matrix
    product, a sum, an activation function, a softmax, a LayerNorm and a gather. Not counted are
    parameters, dropout, token ids, the mask, which is small, and copies that change only the
    layout. The tied matrix of the MLM head counts among the embeddings' parameters, its product in
    the head.
    """
    width, middle, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    hidden, scores = positions * width, config.num_attention_heads * pairs

    def grouped(rows: int, inputs: int, outputs: int, *groups: int) -> Cost:
        """Return the cost of linear layers from `inputs` to `outputs`, one for each of `groups`."""
        weights = sum(inputs * outputs // parts for parts in groups)
        n = len(groups)
        return Cost(2 * rows * weights, weights + n * outputs, n * rows * (inputs + outputs))

    layer = {
        "query_key_value": grouped(
            positions, width, width, config.q_groups, config.k_groups, config.v_groups
        ),
        # Scores from queries and keys, the mask's sum, softmax; the context from it and the values.
        "attention": Cost(
            4 * scores * width // config.num_attention_heads, 0, 4 * hidden + 6 * scores
        ),
        "post_attention": grouped(positions, width, width, config.post_attention_groups),
        "intermediate": grouped(positions, width, middle, config.intermediate_groups),
        "output": grouped(positions, middle, width, config.output_groups),
        # Two residual sums, two LayerNorms, the activation.
        "elementwise": Cost(0, 4 * width, 10 * hidden + 2 * positions * middle),
    }
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    # Two lookups, the sums with positions and with types, LayerNorm.
    parts = {"embeddings": Cost(0, (rows + 2) * width, 9 * hidden)}
    for name, cost in layer.items():
        parts[name] = Cost(layers * cost.flops, layers * cost.parameters, layers * cost.bytes)
    pooled = grouped(batch, width, width, 1)
    parts["pooler"] = pooled._replace(bytes=pooled.bytes + 2 * batch * width)
    if predicted:
        # Gather, linear layer, activation and LayerNorm, then the product with the embeddings.
        transform = grouped(predicted, width, width, 1)
        product = grouped(predicted, width, config.vocab_size, 1)
        parts["mlm_head"] = Cost(
            transform.flops + product.flops,
            transform.parameters + 2 * width + config.vocab_size,
            transform.bytes + product.bytes + 6 * predicted * width,
        )
    if labels:
        parts["classifier"] = grouped(batch, width, labels, 1)
    if tags:
        parts["classifier"] = grouped(positions, width, tags, 1)
    return {name: cost._replace(bytes=cost.bytes * number_bytes) for name, cost in parts.items()}


def total(parts: Mapping[str, Cost]) -> Cost:
    """Return the sum over all parts."""
    return Cost(*(sum(numbers) for numbers in zip(*parts.values(), strict=True)))
