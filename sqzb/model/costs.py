"""What a SqueezeBERT computes, holds and moves, part by part: arithmetic on its sizes, without torch.

Every place counts, padding included: it is computed like the others.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqzb.model.config import SqueezeBertConfig

TRAINING = (
    3  # times the forward's FLOPs: the backward makes two products of each, one for either factor
)


class Cost(NamedTuple):
    """flops: floating-point operations of a forward, two for each multiply-accumulate of its matrix products;
    parameters: how many numbers the part holds; bytes: what a forward reads and writes of
    activations.
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
    """By part, the cost of a forward on (batch, length) places, all layers together.

    predictions: places of each sequence at which the MLM head runs, 0 for a model without it;
    labels: classes of the head on the pooler (2 for SOP), 0 for none; number_bytes: of an
    activation; tags: classes of the head on every position, 0 for none.

    The bytes are those of the plain form: each operation reads the activations that it works on
    once and writes its result once. Operations are a lookup, a linear layer, a matrix product, a
    sum, an activation function, a softmax, a LayerNorm and a gather. Left out: parameters (their
    bytes follow from their number), what dropout moves, token numbers and the mask, which is small,
    and copies that change nothing but the layout. The tied matrix of the MLM head counts among the
    embeddings' parameters, its product with them in the head.
    """
    width, middle, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    places = batch * length
    asked = batch * predictions
    hidden, scores = places * width, batch * config.num_attention_heads * length**2

    def grouped(rows: int, inputs: int, outputs: int, *groups: int) -> Cost:
        """Linear layers from `inputs` to `outputs`, one for each of `groups`."""
        weights = sum(inputs * outputs // parts for parts in groups)
        n = len(groups)
        return Cost(2 * rows * weights, weights + n * outputs, n * rows * (inputs + outputs))

    layer = {
        "query_key_value": grouped(
            places, width, width, config.q_groups, config.k_groups, config.v_groups
        ),
        # Scores from queries and keys, the mask's sum, softmax; the context from it and the values.
        "attention": Cost(
            4 * scores * width // config.num_attention_heads, 0, 4 * hidden + 6 * scores
        ),
        "post_attention": grouped(places, width, width, config.post_attention_groups),
        "intermediate": grouped(places, width, middle, config.intermediate_groups),
        "output": grouped(places, middle, width, config.output_groups),
        # Two residual sums, two LayerNorms, the activation.
        "elementwise": Cost(0, 4 * width, 10 * hidden + 2 * places * middle),
    }
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    # Two lookups, the sums with positions and with types, LayerNorm.
    parts = {"embeddings": Cost(0, (rows + 2) * width, 9 * hidden)}
    parts |= {name: Cost(*(layers * number for number in cost)) for name, cost in layer.items()}
    pooled = grouped(batch, width, width, 1)
    parts["pooler"] = pooled._replace(bytes=pooled.bytes + 2 * batch * width)
    if predictions:
        # Gather, linear layer, activation and LayerNorm, then the product with the embeddings.
        transform, product = (
            grouped(asked, width, width, 1),
            grouped(asked, width, config.vocab_size, 1),
        )
        parts["mlm_head"] = Cost(
            transform.flops + product.flops,
            transform.parameters + 2 * width + config.vocab_size,
            transform.bytes + product.bytes + 6 * asked * width,
        )
    if labels:
        parts["classifier"] = grouped(batch, width, labels, 1)
    if tags:
        parts["classifier"] = grouped(places, width, tags, 1)
    return {name: cost._replace(bytes=cost.bytes * number_bytes) for name, cost in parts.items()}


def total(parts: Mapping[str, Cost]) -> Cost:
    """All parts together."""
    return Cost(*(sum(numbers) for numbers in zip(*parts.values(), strict=True)))
