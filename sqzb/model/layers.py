"""The layers of SqueezeBERT in (batch, length, width) layout, grouped layers as batched matrix products.

Attribute names such as `conv1d` and `layernorm` are those of the published state dict, so that a saved model
needs no translation in either direction.
"""

from collections.abc import Callable

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


# An activation by group: a tensor (groups, rows, width of a group), or a list of the groups' (rows, width of a group).
# A GPU takes all groups in one product. A CPU takes one after the other, and through as many layers as it can, while it
# is in the cache.
Parts = Tensor | list[Tensor]


def stacked(x: Tensor) -> bool:
    return x.device.type != "cpu"


def part(x: Tensor, groups: int) -> Parts:
    """(rows, width) by group, without a copy."""
    return x.view(len(x), groups, -1).transpose(0, 1) if stacked(x) else list(x.chunk(groups, 1))


def join(parts: Parts) -> Tensor:
    """Back to (rows, width)."""
    if isinstance(parts, Tensor):
        return parts.transpose(0, 1).flatten(1)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def regroup(parts: Parts, groups: int) -> Parts:
    """By another number of groups."""
    return parts if len(parts) == groups else part(join(parts), groups)


def each(layer: Callable[[Tensor, int | None], Tensor], parts: Parts) -> Parts:
    """What a layer, or a chain of them, makes of all groups (None) or of each (its number)."""
    if isinstance(parts, Tensor):
        return layer(parts, None)
    return [layer(x, group) for group, x in enumerate(parts)]


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`x` with each number zero with probability `p`, the others scaled up for it, so that the mean stays.

    On a CPU torch draws a number in fp64 for each element, one after the other, which took a third of a forward. Here
    16 bits decide, so the probability is p rounded to 1/65,536, as is the scale.
    """
    if not training or p in (0, 1) or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = min(round(p * 2**16), 2**16 - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: x.numel()].view(x.shape) >= dropped - 2**15
    return x * (kept * (2**16 / (2**16 - dropped))).to(x.dtype)


class Dropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


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

    def forward(self, x: Tensor, group: int | None) -> Tensor:
        """Map (groups, rows, in_features / groups) to (groups, rows, out_features / groups), or the same of one group:
        (rows, in_features / groups)."""
        weight = self.weight.view(self.groups, -1, self.weight.shape[1]).transpose(1, 2)
        bias = self.bias.view(self.groups, -1)
        return torch.baddbmm(bias[:, None], x, weight) if group is None else torch.addmm(bias[group], x, weight[group])


class SelfAttention(nn.Module):
    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.head_width = width // config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = GroupedLinear(width, width, config.q_groups)
        self.key = GroupedLinear(width, width, config.k_groups)
        self.value = GroupedLinear(width, width, config.v_groups)
        groups = {config.q_groups, config.k_groups, config.v_groups}
        self.apart = (
            len(groups) == 1 and config.num_attention_heads % config.q_groups == 0
        )  # groups of whole heads attend apart

    def forward(self, x: Tensor, batch: int, mask: Tensor | None) -> Parts:
        """Map the (rows, width) of `batch` sequences to contexts by group; `mask` (batch, 1, 1, length) is added to the
        scores."""
        layers = (self.query, self.key, self.value)
        if self.apart:
            parts = part(x, self.query.groups)
            return each(lambda x, group: self._attend(batch, mask, *(of(x, group) for of in layers)), parts)
        whole = (join(each(of, part(x, of.groups))) for of in layers)
        return [self._attend(batch, mask, *whole)]

    def _attend(self, batch: int, mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of (groups, rows, width of a group), or of one group's (rows, width of a group)."""
        shape, sequences = query.shape, query.shape[:-2].numel() * batch
        by_head = (sequences, -1, shape[-1] // self.head_width, self.head_width)
        query, key, value = (x.reshape(by_head).transpose(1, 2) for x in (query, key, value))
        if mask is not None:
            mask = mask.to(query.dtype).repeat(sequences // batch, 1, 1, 1)
        context = attention(query, key, value, mask, self.dropout if self.training else 0.0)
        return context.transpose(1, 2).reshape(shape)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropped: float) -> Tensor:
    """Softmax attention of (batch, heads, length, width), scaled by the root of the width."""
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
    # torch's fused backward on a CPU takes up to five times as long as these products.
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    weights = (scores if mask is None else scores.add_(mask)).softmax(-1)
    return dropout(weights, dropped, training=True) @ value


class ProjectAddNorm(nn.Module):
    """Grouped linear layer, dropout, residual sum, LayerNorm (post-LayerNorm, as BERT)."""

    fused = False  # by kernels.py; see use_kernels

    def __init__(self, in_features: int, out_features: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(in_features, out_features, groups)
        self.dropout = Dropout(dropout)
        self.layernorm = nn.LayerNorm(out_features, eps=ENCODER_LAYER_NORM_EPS)

    def forward(self, projected: Parts, residual: Tensor) -> Tensor:
        """From what conv1d has made, by group, and (rows, out_features) beside it to (rows, out_features)."""
        if self.fused:
            from sqzb.model.kernels import dropout_add_norm

            norm, p = self.layernorm, self.dropout.p if self.training else 0.0
            seed = torch.randint(2**62, (), device=residual.device)
            return dropout_add_norm(join(projected), residual, norm.weight, norm.bias, p, norm.eps, seed)
        normed: Tensor = self.layernorm(self.dropout(join(projected)) + residual)
        return normed


class ProjectActivate(nn.Module):
    """Grouped linear layer and activation: the wide middle of the feed-forward block."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.conv1d = GroupedLinear(config.hidden_size, config.intermediate_size, config.intermediate_groups)
        self.activation = activation(config)

    def forward(self, x: Tensor, group: int | None) -> Tensor:
        """As GroupedLinear."""
        activated: Tensor = self.activation(self.conv1d(x, group))
        return activated


class SqueezeBertLayer(nn.Module):
    """Attention and feed-forward block; `post_attention` is the only layer that mixes the groups."""

    fused = False  # by kernels.py; see use_kernels

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width, dropout = config.hidden_size, config.hidden_dropout_prob
        self.attention = SelfAttention(config)
        self.post_attention = ProjectAddNorm(width, width, config.post_attention_groups, dropout)
        self.intermediate = ProjectActivate(config)
        self.output = ProjectAddNorm(config.intermediate_size, width, config.output_groups, dropout)
        self.hidden_act = config.hidden_act

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        rows = x.flatten(0, 1)
        post, wide, narrow = self.post_attention.conv1d, self.intermediate, self.output.conv1d
        context = regroup(self.attention(rows, len(x), mask), post.groups)
        attended = self.post_attention(each(post, context), rows)
        parts = part(attended, wide.conv1d.groups)
        if self.fused:
            from sqzb.model.kernels import grouped_ffn

            weights = (wide.conv1d.weight, wide.conv1d.bias, narrow.weight, narrow.bias)
            projected = part(grouped_ffn(attended, *weights, narrow.groups, self.hidden_act), 1)
        elif wide.conv1d.groups == narrow.groups:
            projected = each(lambda x, group: narrow(wide(x, group), group), parts)
        else:
            projected = each(narrow, regroup(each(wide, parts), narrow.groups))
        output: Tensor = self.output(projected, attended)
        return output.view_as(x)


def use_kernels(model: nn.Module) -> None:
    """Let the layers run kernels.py, which needs Triton and a GPU. ValueError where the model has no such layers, or
    its groups do not fit."""
    from sqzb.model.kernels import MAX_GROUP_WIDTH

    if not any(isinstance(module, SqueezeBertLayer) for module in model.modules()):
        raise ValueError("the kernels are SqueezeBERT's, and this is another model")
    for module in model.modules():
        if isinstance(module, SqueezeBertLayer):
            wide, narrow = module.intermediate.conv1d, module.output.conv1d
            widths = wide.weight.shape[1], narrow.weight.shape[0] // narrow.groups
            if wide.groups != narrow.groups or max(widths) > MAX_GROUP_WIDTH:
                raise ValueError(
                    "the kernels need as many groups in `intermediate` as in `output`, of at most "
                    f"{MAX_GROUP_WIDTH} numbers"
                )
        if isinstance(module, SqueezeBertLayer | ProjectAddNorm):
            module.fused = True


def initialize(model: nn.Module, config: SqueezeBertConfig) -> None:
    """BERT's initialisation: weights of standard deviation `initializer_range`, zero biases, a zero padding row."""
    for module in model.modules():
        if isinstance(module, nn.Linear | GroupedLinear | nn.Embedding):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear | GroupedLinear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.data[module.padding_idx])
