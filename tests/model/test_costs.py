"""Costs against what torch counts when the real modules run, and against the published model's
figures.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from examples import scaled
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
)
from sqzb.model.costs import TRAINING, costs, total

pytestmark = pytest.mark.usefixtures("known_products")

PUBLISHED = SqueezeBertConfig()
# What each part of the costs is called among the modules; the attention's own work is what is left
# of its module.
MODULES = {
    "query_key_value": ("attention.query", "attention.key", "attention.value"),
    "post_attention": ("post_attention.conv1d",),
    "intermediate": ("intermediate.conv1d",),
    "output": ("output.conv1d",),
    "elementwise": ("post_attention.layernorm", "output.layernorm"),
    "embeddings": ("transformer.embeddings",),
    "pooler": ("transformer.pooler",),
    "mlm_head": (".cls",),
    "classifier": (".sop", ".classifier"),
}

OPERATIONS = {
    "addmm", "mm", "bmm", "baddbmm", "add", "add_", "gelu", "relu", "tanh", "_softmax",
    "_safe_softmax", "native_layer_norm", "embedding", "gather",
}  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[SqueezeBertConfig, int, int, int]:
    """Sizes of a model, a batch, a length and a number of predictions."""
    heads, unit = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([2, 3]))
    groups = [draw(st.sampled_from([1, 2, 4])) for _ in range(6)]
    names = [
        "q_groups",
        "k_groups",
        "v_groups",
        "post_attention_groups",
        "intermediate_groups",
        "output_groups",
    ]
    config = SqueezeBertConfig(
        vocab_size=draw(st.integers(6, 40)),
        hidden_size=4 * unit,
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=4 * draw(st.integers(1, 5)),
        max_position_embeddings=16,
        type_vocab_size=draw(st.integers(2, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu"])),
        id2label={n: str(n) for n in range(draw(st.integers(1, 4)))},
        **dict[str, Any](zip(names, groups, strict=True)),
    )
    assume(config.problems() == [])
    return config, draw(st.integers(1, 4)), draw(st.integers(2, 16)), draw(st.integers(1, 5))


def inputs(config: SqueezeBertConfig, batch: int, length: int) -> dict[str, Tensor]:
    ones = torch.ones(batch, length, dtype=torch.long)
    return {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones}


def pretraining_inputs(
    config: SqueezeBertConfig, batch: int, length: int, predictions: int
) -> dict[str, Tensor]:
    asked = torch.ones(batch, predictions, dtype=torch.long)
    labels = {
        "mlm_positions": asked,
        "mlm_labels": asked,
        "sop_labels": torch.ones(batch, dtype=torch.long),
    }
    return inputs(config, batch, length) | labels


def by_part(found: dict[str, int]) -> Counter[str]:
    """Counts by module's name, added up by part."""
    sums: Counter[str] = Counter()
    for part, endings in MODULES.items():
        sums[part] += sum(number for name, number in found.items() if name.endswith(endings))
    whole = sum(number for name, number in found.items() if name.endswith(".attention"))
    sums["attention"] = whole - sums["query_key_value"]
    return sums


@settings(max_examples=scaled(15))
@given(cases())
def test_flops_are_those_that_torch_counts(case: tuple[SqueezeBertConfig, int, int, int]) -> None:
    config, batch, length, predictions = case
    model = SqueezeBertForPreTraining(config)
    expected = costs(config, batch, length, predictions, labels=2)
    # The counter does not know the CPU's own attention, and counts the products of the plain one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        loss_sums = model(**pretraining_inputs(config, batch, length, predictions)).loss_sums
    counts = {name: sum(ops.values()) for name, ops in forward.get_flop_counts().items()}
    assert by_part(counts) == {name: cost.flops for name, cost in expected.items()}
    assert forward.get_total_flops() == total(expected).flops
    with FlopCounterMode(display=False) as backward:
        sum(loss_sum.loss for loss_sum in loss_sums.values()).backward()
    assert (
        forward.get_total_flops() + backward.get_total_flops() == TRAINING * total(expected).flops
    )


@settings(max_examples=scaled(7))
@given(cases())
def test_a_classifier_in_the_heads_place(case: tuple[SqueezeBertConfig, int, int, int]) -> None:
    config, batch, length, _ = case
    model = SqueezeBertForSequenceClassification(config)
    expected = total(costs(config, batch, length, labels=config.num_labels))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs(config, batch, length))
    assert counter.get_total_flops() == expected.flops
    assert sum(parameter.numel() for parameter in model.parameters()) == expected.parameters


@settings(max_examples=scaled(7))
@given(cases())
def test_a_classifier_of_tokens(case: tuple[SqueezeBertConfig, int, int, int]) -> None:
    config, batch, length, _ = case
    model = SqueezeBertForTokenClassification(config)
    expected = total(costs(config, batch, length, tags=config.num_labels))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs(config, batch, length))
    assert counter.get_total_flops() == expected.flops == model.forward_flops(batch, length)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected.parameters


@settings(max_examples=scaled(10))
@given(cases())
def test_parameters_are_those_of_the_modules(case: tuple[SqueezeBertConfig, int, int, int]) -> None:
    config, batch, length, predictions = case
    model = SqueezeBertForPreTraining(config)
    expected = costs(config, batch, length, predictions, labels=2)
    modules = {
        f".{name}": sum(p.numel() for p in module.parameters())
        for name, module in model.named_modules()
    }
    assert by_part(modules) == {name: cost.parameters for name, cost in expected.items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == total(expected).parameters


class Traffic(TorchDispatchMode):
    """Adds up the numbers that operations read and write, of all tensors but the `known` ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        dimensions = [leaf.dim() for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        bias = name in ("add", "add_") and 1 in dimensions  # torch takes some linear layers apart
        if name in OPERATIONS and not bias:
            written = result[0] if isinstance(result, tuple) else result
            gathered = func is torch.ops.aten.gather.default  # it reads no more than it takes
            read = sum(tensor.numel() for tensor in tree_leaves(args) if self._counts(tensor))
            self.numbers += written.numel() + (written.numel() if gathered else read)
        return result

    def _counts(self, tensor: Any) -> bool:
        """Not parameters, nor whole numbers, nor the mask, whose storage is smaller than its
        expanded view.
        """
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return False
        mask = tensor.dim() == 4 and tensor.shape[1:3] == (1, 1)
        return not mask and tensor.untyped_storage().data_ptr() not in self.known


@settings(max_examples=scaled(15))
@given(cases(), st.sampled_from([2, 4]))
def test_bytes_are_what_the_operations_read_and_write(
    case: tuple[SqueezeBertConfig, int, int, int], number_bytes: int
) -> None:
    config, batch, length, predictions = case
    assume(length > 1 and config.num_attention_heads > 1)  # else scores look like a mask
    model = SqueezeBertForPreTraining(config).eval()
    given = pretraining_inputs(config, batch, length, predictions)
    arguments = {name: tensor for name, tensor in given.items() if "labels" not in name}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Traffic(model) as traffic:
        model(**arguments)
    parts = costs(config, batch, length, predictions, labels=2, number_bytes=number_bytes)
    assert total(parts).bytes == traffic.numbers * number_bytes


def test_the_published_model() -> None:
    parts = costs(PUBLISHED, 1, 128)
    assert total(parts).parameters == 51_089_664
    assert parts["embeddings"].parameters == 23_837_184
    layer = (
        "query_key_value",
        "attention",
        "post_attention",
        "intermediate",
        "output",
        "elementwise",
    )
    assert sum(parts[name].parameters for name in layer) == 12 * 2_221_824
    assert total(parts).flops == pytest.approx(7.40e9, rel=1e-3)


def test_the_published_runs_cost() -> None:
    """Both phases of the recipe, 1.75e19 FLOP."""
    phases = [(56_000, 128, 20), (6_000, 512, 80)]
    flops = sum(
        TRAINING * n * total(costs(PUBLISHED, 8192, length, k, labels=2)).flops
        for n, length, k in phases
    )
    assert flops == pytest.approx(1.75e19, rel=0.005)


def test_a_model_without_heads_is_the_encoder(tiny: Callable[..., SqueezeBertConfig]) -> None:
    model = SqueezeBertModel(tiny())
    assert total(costs(tiny(), 2, 8)).parameters == sum(
        parameter.numel() for parameter in model.parameters()
    )
