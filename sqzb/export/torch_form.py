"""A SqueezeBERT as a torch module whose layers have the form that is best for a runtime."""

from typing import Any

import torch
from torch import Tensor, nn

from sqzb.export.heads import CLASSIFIER, ENCODER, MLM, TOKENS, VECTORS, Head
from sqzb.export.weights import encoder_of
from sqzb.model.layers import SqueezeBertLayer

LOW = -1e9  # added to the scores of padding: its exponential is 0 in fp32 and in bf16


def layers_of(model: nn.Module) -> list[SqueezeBertLayer]:
    """Return the layers of a model with a head, or of the bare encoder."""
    return [
        layer for layer in encoder_of(model).encoder.layers if isinstance(layer, SqueezeBertLayer)
    ]


class TorchForm(nn.Module):
    """A model with a head around layers of another form.

    layers: map (batch, length, width) to the same shape, given a mask (batch, length) of 0 and LOW.
    """

    def __init__(self, model: Any, head: Head, layers: nn.Module) -> None:
        super().__init__()
        encoder = encoder_of(model)
        self.head = head
        self.embeddings = encoder.embeddings
        self.layers = layers
        # Only the parts that the head needs, because an exporter may store all parameters.
        if head == MLM:
            self.cls = model.cls
        if head in (CLASSIFIER, TOKENS):
            self.classifier = model.classifier
        if head in (CLASSIFIER, ENCODER):
            self.pooler = encoder.pooler

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the head's outputs, in the order of `heads.OUTPUTS`."""
        parts = self.embeddings
        positions = torch.arange(input_ids.shape[1])
        x = parts.word_embeddings(input_ids) + parts.token_type_embeddings(token_type_ids)
        x = parts.LayerNorm(x + parts.position_embeddings(positions))
        mask = (1.0 - attention_mask.float()) * LOW
        return self._outputs(self.layers(x, mask), attention_mask)

    def _outputs(self, x: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        if self.head == VECTORS:
            weights = attention_mask[:, :, None].float()
            return ((x * weights).sum(1) / weights.sum(1),)
        if self.head == MLM:
            return (self.cls(x, self.embeddings.word_embeddings),)
        if self.head == TOKENS:
            return (self.classifier(x),)
        pooled = self.pooler(x)
        if self.head == ENCODER:
            return x, pooled
        assert self.head == CLASSIFIER
        return (self.classifier(pooled),)
