"""The layers of SqueezeBERT in (batch, length, width) layout.

Attribute names such as `conv1d` and `layernorm` are those of the published state dict, so that the
tensors of a saved model keep their names.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.grouped import feed_forward, grouped_linear, in_autocast
from sqzb.model.operators import fake, operator
from sqzb.model.unpadding import SequenceRows

# The published implementation ignores `layer_norm_eps` inside the encoder layers and always uses
# this value.
ENCODER_LAYER_NORM_EPS = 1e-12


def activation(config: SqueezeBertConfig) -> nn.Module:
    """Return the activation named `hidden_act`: "gelu" (exact), "gelu_new" (tanh) or "relu"."""
    if config.hidden_act == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="none" if config.hidden_act == "gelu" else "tanh")


@operator("dropout_factor")
def dropout_factor(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """Return the factors of dropout for `x` on a CPU: 0 with probability `p`, else 1 / (1 - p).

    The factors are a pure function of `seed` (a non-negative integer) and of the shape, the type
    and `p`. Each is decided by 16 random bits, so the probability and the scale are those of p
    rounded to 1/65,536.
    """
    dropped = min(round(p * 2**16), 2**16 - 1)
    bits = np.random.SFC64(int(seed)).random_raw(-(-x.numel() // 4)).view(np.int16)
    # The comparison writes numbers directly, because a bool tensor and its conversion are slower.
    kept = torch.empty(x.shape, dtype=x.dtype)
    torch.ge(torch.from_numpy(bits[: x.numel()]).view(x.shape), dropped - 2**15, out=kept)
    return kept.mul_(2**16 / (2**16 - dropped))


@fake(dropout_factor)
def _(x: Tensor, p: float, seed: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Return `x` with elements zeroed with probability `p` and the others scaled by 1 / (1 - p).

    On a CPU torch draws a number in fp64 for each element, one after the other, so a CPU has a
    faster generator here, `dropout_factor`.
    """
    if not training or p in (0, 1) or x.device.type != "cpu":
        return F.dropout(x, p, training)
    # Not Tensor.random_, which would break the graph of torch.compile, nor randint, which draws
    # other numbers when it is compiled.
    seed = torch.ops.aten.random(torch.empty((), dtype=torch.int64))
    factor: Tensor = dropout_factor(x.detach(), p, seed)
    return x * factor


class Dropout(nn.Dropout):
    """Dropout as nn.Dropout, with `dropout`'s faster generator on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout in training; the shape stays."""
        return dropout(x, self.p, self.training)


def _seed(x: Tensor) -> Tensor:
    """Return the seed of a kernel's dropout, on the device of `x`."""
    return torch.randint(2**62, (), device=x.device)


class GroupedLinear(nn.Module):
    """A linear layer with a block-diagonal weight: output group g depends only on input group g.

    It is equal to a grouped convolution of kernel size 1 (Iandola et al. 2020, section 3), whose
    parameter shapes it keeps: weight (out_features, in_features / groups, 1) and bias
    (out_features).
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups, 1))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, in_features) to (rows, out_features)."""
        return grouped_linear(x, self.weight, self.bias, self.groups)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose queries, keys and values are grouped linear layers."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.head_width = width // self.heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = GroupedLinear(width, width, config.q_groups)
        self.key = GroupedLinear(width, width, config.k_groups)
        self.value = GroupedLinear(width, width, config.v_groups)

    def forward(
        self, x: Tensor, batch: int, mask: Tensor | None, sequences: SequenceRows | None = None
    ) -> Tensor:
        """Map (rows, width), the rows of `batch` sequences, to contexts of the same shape.

        mask: (batch, 1, 1, length), added to the scores; None: no padding.
        sequences: the places of the sequences, if the rows have no padding. Here, the attention
        itself is computed in the padded form.
        """
        x = in_autocast(x)  # once for the three layers
        layers = self.query, self.key, self.value
        query, key, value = (self._by_head(layer(x), batch, sequences) for layer in layers)
        mask = None if mask is None else mask.to(query.dtype)
        context = attention(query, key, value, mask, self.dropout if self.training else 0.0)
        rows = context.transpose(1, 2).reshape(-1, x.shape[1])
        return rows if sequences is None else sequences.unpadded(rows)

    def packed(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of one layer that computes each group's query, key and value.

        A group's query comes first, then its key and its value.
        """
        groups, layers = self.query.groups, (self.query, self.key, self.value)
        weight = torch.cat(
            [layer.weight.view(groups, -1, layer.weight.shape[1]) for layer in layers], 1
        )
        bias = torch.cat([layer.bias.view(groups, -1) for layer in layers], 1)
        return weight.flatten(0, 1)[..., None], bias.flatten()

    def _by_head(self, x: Tensor, batch: int, sequences: SequenceRows | None) -> Tensor:
        """View (rows, width) as (batch, heads, length, head_width), padded if it has no padding."""
        rows = x if sequences is None else sequences.padded(x)
        return rows.view(batch, -1, self.heads, self.head_width).transpose(1, 2)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropped: float
) -> Tensor:
    """Compute softmax attention of (batch, heads, length, width), scaled by 1 / sqrt(width).

    dropped: probability with which an attention weight is dropped.
    """
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
    # torch's fused backward is slower than these products on a CPU.
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    weights = (scores if mask is None else scores.add_(mask)).softmax(-1)
    return dropout(weights, dropped, training=True) @ value


class ProjectAddNorm(nn.Module):
    """A grouped linear layer, dropout, residual sum and LayerNorm (post-LayerNorm, as BERT)."""

    def __init__(self, in_features: int, out_features: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(in_features, out_features, groups)
        self.dropout = Dropout(dropout)
        self.layernorm = nn.LayerNorm(out_features, eps=ENCODER_LAYER_NORM_EPS)

    def forward(self, projected: Tensor, residual: Tensor) -> Tensor:
        """Add conv1d's output to the residual and normalise; all (rows, out_features).

        projected: the output of conv1d, which the caller applies.
        """
        normed: Tensor = self.layernorm(self.dropout(projected) + residual)
        return normed

    def by_kernel(self, projected: Tensor, residual: Tensor) -> Tensor:
        """Compute `forward` by a kernel, from conv1d's output without its bias."""
        from sqzb.model.kernels.norm import dropout_add_norm

        norm, p = self.layernorm, self.dropout.p if self.training else 0.0
        bias = self.conv1d.bias
        return dropout_add_norm(
            projected, bias, residual, norm.weight, norm.bias, p, norm.eps, _seed(residual)
        )


class ProjectActivate(nn.Module):
    """A grouped linear layer and activation: the wide middle of the feed-forward block."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(
            config.hidden_size, config.intermediate_size, config.intermediate_groups
        )
        self.activation = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, hidden_size) to (rows, intermediate_size)."""
        activated: Tensor = self.activation(self.conv1d(x))
        return activated


class SqueezeBertLayer(nn.Module):
    """An attention and a feed-forward block (Iandola et al. 2020, section 3).

    With the published group counts, `post_attention` is the only linear layer that mixes groups.
    """

    by_kernels = False  # set by use_kernels

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width, dropout = config.hidden_size, config.hidden_dropout_prob
        self.attention = SelfAttention(config)
        self.post_attention = ProjectAddNorm(width, width, config.post_attention_groups, dropout)
        self.intermediate = ProjectActivate(config)
        self.output = ProjectAddNorm(config.intermediate_size, width, config.output_groups, dropout)
        self.hidden_act = config.hidden_act

    def forward(
        self, x: Tensor, mask: Tensor | None, sequences: SequenceRows | None = None
    ) -> Tensor:
        """Map (batch, length, width), or (rows, width) without padding, to the same shape.

        mask: (batch, 1, 1, length), added to the attention scores; None: no padding.
        sequences: the places of the sequences, if the rows have no padding.
        """
        rows = x.flatten(0, -2)
        batch = len(x) if sequences is None else sequences.batch
        if self.by_kernels:
            return self._by_kernels(in_autocast(rows), batch, mask, sequences).view_as(x)
        context = self.attention(rows, batch, mask, sequences)
        attended = self.post_attention(self.post_attention.conv1d(context), rows)
        output: Tensor = self.output(self.projected(attended), attended)
        return output.view_as(x)

    def projected(self, x: Tensor) -> Tensor:
        """Compute the feed-forward block without dropout, sum and norm; (rows, width) stays."""
        wide, narrow = self.intermediate.conv1d, self.output.conv1d
        if wide.groups != narrow.groups:
            result: Tensor = narrow(self.intermediate(x))
            return result
        return feed_forward(
            x, wide.weight, wide.bias, narrow.weight, narrow.bias, wide.groups, self.hidden_act
        )

    def _by_kernels(
        self, x: Tensor, batch: int, mask: Tensor | None, sequences: SequenceRows | None
    ) -> Tensor:
        """Compute `forward` on rows by kernels, in the rows' type.

        Under autocast, that is its type, which all activations between layers then have.
        """
        from sqzb.model.kernels.attention import packed_attention
        from sqzb.model.kernels.linear import fused_feed_forward, grouped_product

        weight, bias = self.attention.packed()
        groups, heads, p = self.attention.query.groups, self.attention.heads, self.attention.dropout
        packed = grouped_product(x, weight, bias, groups)
        mask = None if mask is None or sequences is not None else mask.view(batch, -1)
        context = packed_attention(
            packed,
            bias,
            mask,
            batch,
            heads,
            groups,
            p if self.training else 0.0,
            _seed(x),
            sequences,
        )

        post = self.post_attention.conv1d
        if post.groups == 1:
            projected = F.linear(context, post.weight.squeeze(-1))
        else:
            projected = grouped_product(context, post.weight, post.bias.detach(), post.groups)
        attended = self.post_attention.by_kernel(projected, x)

        wide, narrow = self.intermediate.conv1d, self.output.conv1d
        projected = fused_feed_forward(
            attended, wide.weight, wide.bias, narrow.weight, wide.groups, self.hidden_act
        )
        return self.output.by_kernel(projected, attended)


def use_kernels(model: nn.Module) -> None:
    """Make the layers of the model run kernels/, which need Triton and a GPU.

    Raises:
        ImportError: Triton is not installed.
        ValueError: the model has no such layers, or its groups or heads do not fit the kernels.
    """
    # Imported here, so that a missing Triton is reported before the first step.
    from sqzb.model.kernels.attention import HEAD_WIDTHS

    layers = [module for module in model.modules() if isinstance(module, SqueezeBertLayer)]
    if not layers:
        raise ValueError("the kernels are SqueezeBERT's, and this is another model")
    for layer in layers:
        attention, wide, narrow = layer.attention, layer.intermediate.conv1d, layer.output.conv1d
        if wide.groups != narrow.groups:
            raise ValueError("the kernels need as many groups in `intermediate` as in `output`")
        groups, width = attention.query.groups, attention.head_width
        if {attention.key.groups, attention.value.groups} != {groups} or attention.heads % groups:
            raise ValueError(
                "the kernels need as many groups in `q`, `k` and `v`, which divide the heads"
            )
        if width not in HEAD_WIDTHS:
            raise ValueError(
                f"the kernels need heads of 16, 32, 64 or 128 numbers, and these have {width}"
            )
        layer.by_kernels = True


def by_kernels(model: nn.Module) -> bool:
    """Return whether a layer of the model runs kernels/."""
    layers = (module for module in model.modules() if isinstance(module, SqueezeBertLayer))
    return any(layer.by_kernels for layer in layers)


def initialize(model: nn.Module, config: SqueezeBertConfig) -> None:
    """Initialise as BERT: weights from N(0, initializer_range), zero biases, a zero padding row."""
    for module in model.modules():
        if isinstance(module, nn.Linear | GroupedLinear | nn.Embedding):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear | GroupedLinear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.data[module.padding_idx])
