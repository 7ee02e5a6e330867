"""The layers of SqueezeBERT in (batch, length, width) layout, grouped layers as batched matrix products.

Attribute names such as `conv1d` and `layernorm` are those of the published state dict, so that a saved model
needs no translation in either direction.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.model.config import SqueezeBertConfig

# The published implementation ignores `layer_norm_eps` inside the encoder layers and always uses this value.
ENCODER_LAYER_NORM_EPS = 1e-12


def activation(config: SqueezeBertConfig) -> nn.Module:
    """The activation named by `hidden_act`: exact gelu, its tanh approximation ("gelu_new") or relu."""
    if config.hidden_act == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="none" if config.hidden_act == "gelu" else "tanh")


class GroupedLinear(nn.Module):
    """A linear layer with a block-diagonal weight: output group g sees input group g alone.

    Equal to a grouped convolution of kernel size 1, whose parameter shapes it keeps: weight
    (out_features, in_features / groups, 1) and bias (out_features).
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups, 1))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, in_features) to (batch, length, out_features)."""
        if self.groups == 1:
            return F.linear(x, self.weight.squeeze(-1), self.bias)
        batch, length, _ = x.shape
        by_group = x.reshape(batch * length, self.groups, -1).transpose(0, 1)
        weight = self.weight.view(self.groups, -1, self.weight.shape[1]).transpose(1, 2)
        product = torch.baddbmm(self.bias.view(self.groups, 1, -1), by_group, weight)
        return product.transpose(0, 1).reshape(batch, length, -1)


class SelfAttention(nn.Module):
    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = GroupedLinear(width, width, config.q_groups)
        self.key = GroupedLinear(width, width, config.k_groups)
        self.value = GroupedLinear(width, width, config.v_groups)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (batch, length, width) to the same shape; `mask` (batch, 1, 1, length) is added to the scores."""
        query, key, value = (self._by_head(layer(x)) for layer in (self.query, self.key, self.value))
        mask = None if mask is None else mask.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class ProjectAddNorm(nn.Module):
    """Grouped linear layer, dropout, residual sum, LayerNorm (post-LayerNorm, as BERT)."""

    def __init__(self, in_features: int, out_features: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(in_features, out_features, groups)
        self.dropout = nn.Dropout(dropout)
        self.layernorm = nn.LayerNorm(out_features, eps=ENCODER_LAYER_NORM_EPS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.layernorm(self.dropout(self.conv1d(x)) + residual)
        return normed


class ProjectActivate(nn.Module):
    """Grouped linear layer and activation: the wide middle of the feed-forward block."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(config.hidden_size, config.intermediate_size, config.intermediate_groups)
        self.activation = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.conv1d(x))
        return activated


class SqueezeBertLayer(nn.Module):
    """Attention and feed-forward block; `post_attention` is the only layer that mixes the groups."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width, dropout = config.hidden_size, config.hidden_dropout_prob
        self.attention = SelfAttention(config)
        self.post_attention = ProjectAddNorm(width, width, config.post_attention_groups, dropout)
        self.intermediate = ProjectActivate(config)
        self.output = ProjectAddNorm(config.intermediate_size, width, config.output_groups, dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        attended = self.post_attention(self.attention(x, mask), x)
        output: Tensor = self.output(self.intermediate(attended), attended)
        return output


def initialize(model: nn.Module, config: SqueezeBertConfig) -> None:
    """BERT's initialisation: weights of standard deviation `initializer_range`, zero biases, a zero padding row."""
    for module in model.modules():
        if isinstance(module, nn.Linear | GroupedLinear | nn.Embedding):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear | GroupedLinear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.data[module.padding_idx])
