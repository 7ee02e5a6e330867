"""The encoder's size, its mask, and what it does with sequences that are too long."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from examples import scaled
from sqzb.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertModel

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
Batch = Callable[..., dict[str, Tensor]]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_model_has_51_089_664_parameters() -> None:
    with torch.device("meta"):
        model = SqueezeBertModel(SqueezeBertConfig())
    assert parameters(model) == 51_089_664
    assert {parameters(layer) for layer in model.encoder.layers} == {2_221_824}
    assert parameters(model.embeddings) == 23_837_184


def test_tied_weights_are_one_parameter() -> None:
    with torch.device("meta"):
        model = SqueezeBertForMaskedLM(SqueezeBertConfig())
    assert parameters(model) == 51_089_664 + 768 * 768 + 768 + 2 * 768 + 30522


@pytest.fixture(scope="module")
def model(tiny: Config, scramble: Scramble) -> Any:
    return scramble(SqueezeBertModel(tiny())).eval()


@settings(max_examples=scaled(12))
@given(
    seed=st.integers(0, 999),
    padding=st.integers(1, 8),
    kind=st.sampled_from([torch.bool, torch.long, torch.float]),
)
def test_padding_changes_nothing(
    seed: int, padding: int, kind: torch.dtype, model: nn.Module, tiny: Config, batch: Batch
) -> None:
    inputs = batch(tiny(), rows=3, length=12, seed=seed)
    filled = {
        name: nn.functional.pad(tensor, (0, padding), value=1) for name, tensor in inputs.items()
    }
    filled["attention_mask"][:, 12:] = 0
    filled["attention_mask"] = filled["attention_mask"].to(kind)
    short, long = model(**inputs), model(**filled)
    asked = inputs["attention_mask"].bool()
    assert_close(
        long.last_hidden_state[:, :12][asked], short.last_hidden_state[asked], rtol=0, atol=1e-5
    )
    assert_close(long.pooler_output, short.pooler_output, rtol=0, atol=1e-5)


@settings(max_examples=scaled(7))
@given(seed=st.integers(0, 999), changed=st.integers(0, 10))
def test_every_token_is_seen_by_every_other(
    seed: int, changed: int, model: nn.Module, tiny: Config, batch: Batch
) -> None:
    ids = batch(tiny(), rows=2, length=11, seed=seed)["input_ids"]
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % 60
    before, after = model(ids).last_hidden_state, model(other).last_hidden_state
    assert (before[0] - after[0]).abs().amax(1).gt(1e-4).all()
    assert_close(before[1], after[1])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_row_of_nothing_but_padding_stays_finite_and_harms_no_other(
    precision: torch.dtype, model: nn.Module, tiny: Config, batch: Batch
) -> None:
    inputs = batch(tiny())
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        whole = model(**inputs).last_hidden_state
        inputs["attention_mask"][1] = 0
        partly = model(**inputs).last_hidden_state
        partly.float().sum().backward()
    assert partly.isfinite().all()
    assert_close(partly[[0, 2, 3]], whole[[0, 2, 3]])
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_bf16_is_close_to_fp32(model: nn.Module, tiny: Config, batch: Batch) -> None:
    inputs = batch(tiny())
    full = model(**inputs).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**inputs).last_hidden_state
    asked = inputs["attention_mask"].bool()
    error = (half.float() - full)[asked].std() / full[asked].std()
    assert 1e-5 < error < 0.05


def test_a_sequence_longer_than_the_positions_is_refused_with_both_numbers(
    model: nn.Module,
) -> None:
    assert model(torch.zeros(1, 24, dtype=torch.long)).last_hidden_state.shape == (1, 24, 32)
    with pytest.raises(ValueError, match=r"25 .*24"):
        model(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_is_for_training_alone(
    place: str, tiny: Config, scramble: Scramble, batch: Batch
) -> None:
    inputs = batch(tiny())
    without = scramble(SqueezeBertModel(tiny())).eval()(**inputs).last_hidden_state
    model = scramble(SqueezeBertModel(tiny(**{place: 0.3})))
    assert_close(model.eval()(**inputs).last_hidden_state, without)
    assert (model.train()(**inputs).last_hidden_state - without).abs().max() > 0.01


def test_embeddings_are_dropped_out_after_their_norm(tiny: Config, batch: Batch) -> None:
    model = SqueezeBertModel(tiny()).train()
    model.embeddings.dropout.p = 1.0
    inputs = batch(tiny())
    assert not model.embeddings(inputs["input_ids"], inputs["token_type_ids"]).any()


def test_the_seed_decides_the_initial_weights(tiny: Config) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(SqueezeBertModel(tiny()).state_dict())
    one, same, other = states
    assert all(tensor.equal(same[name]) for name, tensor in one.items())
    assert {name for name, tensor in one.items() if not tensor.equal(other[name])} == {
        name for name in one if name.endswith("weight") and "layernorm" not in name.lower()
    }
