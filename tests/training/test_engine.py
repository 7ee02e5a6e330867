"""A step is one sum: the same however it is divided, and harmless where it is not finite."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.heads import IGNORED
from sqzb.recipe import Optimizer
from sqzb.training import engine as engine_module
from sqzb.training.engine import Engine, StepResult, dropout_key
from sqzb.training.lamb import Lamb
from sqzb.training.optimizers import make_optimizer, parameter_groups

LABELS = {"mlm": "mlm_labels", "sop": "sop_labels"}
ROWS, LENGTH, PREDICTIONS = 32, 16, 6


def examples(vocab_size: int, seed: int) -> dict[str, Tensor]:
    """Rows that count very differently: the first have one prediction and no SOP label, the last
    have all.
    """
    draw = np.random.default_rng(seed)
    lengths = np.linspace(4, LENGTH, ROWS).astype(int)
    labels = draw.integers(5, vocab_size, (ROWS, PREDICTIONS))
    labels[np.arange(PREDICTIONS) >= np.linspace(1, PREDICTIONS, ROWS).astype(int)[:, None]] = (
        IGNORED
    )
    sop = draw.integers(0, 2, ROWS)
    sop[:20] = IGNORED
    arrays = {
        "input_ids": draw.integers(5, vocab_size, (ROWS, LENGTH)),
        "attention_mask": (np.arange(LENGTH) < lengths[:, None]).astype(np.int64),
        "token_type_ids": draw.integers(0, 2, (ROWS, LENGTH)),
        "mlm_positions": draw.integers(0, 4, (ROWS, PREDICTIONS)),
        "mlm_labels": labels,
        "sop_labels": sop,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def divided(batch: Mapping[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    split = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [{name: tensors[part] for name, tensors in split.items()} for part in range(parts)]


def engine_for(config: SqueezeBertConfig, deferred: bool = False, name: str = "lamb") -> Engine:
    torch.manual_seed(0)
    model = SqueezeBertForPreTraining(config)
    optimizer = make_optimizer(Optimizer.model_validate({"name": name}), model)
    if name == "lamb":
        groups = parameter_groups(model, 0.01)
        optimizer = Lamb(groups, 1.0, (0.9, 0.999), 1e-6, together=deferred)
    return Engine(Accelerator(), model, optimizer, LABELS, 1.0, False, deferred=deferred)


def weights(engine: Engine) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in engine.model.state_dict().items()}


Trained = Callable[[int], tuple[list[StepResult], dict[str, Tensor], dict[str, float]]]


@pytest.fixture
def trained(tiny_config: SqueezeBertConfig) -> Trained:
    def train(parts: int) -> tuple[list[StepResult], dict[str, Tensor], dict[str, float]]:
        engine = engine_for(tiny_config)
        results = [
            engine.step(divided(examples(tiny_config.vocab_size, step), parts), 0.01, range(parts))
            for step in range(3)
        ]
        evaluated = engine.evaluate(divided(examples(tiny_config.vocab_size, 9), parts))
        return results, weights(engine), evaluated

    return train


@pytest.mark.parametrize("parts", [2, 8, 32])
def test_micro_batches_add_up_to_one_batch(trained: Trained, parts: int) -> None:
    whole, division = trained(1), trained(parts)
    for one, other in zip(whole[0], division[0], strict=True):
        assert set(one) == {"mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy", "grad_norm"}
        assert other == pytest.approx(one, rel=1e-5)
        assert one.loss == pytest.approx(one["mlm_loss"] + one["sop_loss"])
    for name, tensor in whole[1].items():
        torch.testing.assert_close(division[1][name], tensor, rtol=0, atol=1e-5)
    assert division[2] == pytest.approx(whole[2], rel=1e-5)


def test_the_figures_are_means_over_what_has_a_label(tiny_config: SqueezeBertConfig) -> None:
    engine = engine_for(tiny_config)
    batch = examples(tiny_config.vocab_size, 0)
    output = engine.model.eval()(
        **{name: tensor for name, tensor in batch.items() if "labels" not in name}
    )
    figures = engine.evaluate(divided(batch, 4))
    for name, logits in (("mlm", output.mlm_logits.flatten(0, 1)), ("sop", output.sop_logits)):
        labels = batch[LABELS[name]].flatten()
        logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        assert figures[f"{name}_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert figures[f"{name}_accuracy"] == pytest.approx(
            (logits.argmax(-1) == labels).float().mean().item()
        )


def test_the_gradient_is_that_of_the_summed_means_and_is_clipped(
    tiny_config: SqueezeBertConfig,
) -> None:
    engine = engine_for(tiny_config)
    batch = examples(tiny_config.vocab_size, 0)
    loss_sums = engine.model(**batch).loss_sums
    sum(
        loss_sum.loss / (batch[LABELS[name]] != IGNORED).sum()
        for name, loss_sum in loss_sums.items()
    ).backward()
    expected = {
        name: p.grad.clone() for name, p in engine.model.named_parameters() if p.grad is not None
    }
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    engine.model.zero_grad()
    seen: dict[str, Tensor] = {}
    # Lamb goes through the groups one by one, so this is called once.
    engine.optimizer.register_step_pre_hook(
        lambda *_: seen.update(
            {
                name: p.grad.clone()
                for name, p in engine.model.named_parameters()
                if p.grad is not None
            }
        )
    )
    result = engine.step(divided(batch, 8), 0.01, range(8))
    assert result["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            seen[name], gradient / max(1.0, norm.item()), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(
    tiny_config: SqueezeBertConfig, name: str, bad: float
) -> None:
    engine = engine_for(tiny_config, name=name)
    batch = divided(examples(tiny_config.vocab_size, 0), 4)
    assert engine.step(batch, 0.01, range(4)).finite
    before = weights(engine)
    moments = [value.clone() for kept in engine.optimizer.state.values() for value in kept.values()]
    broken = engine.model.get_parameter("transformer.embeddings.LayerNorm.bias").register_hook(
        lambda gradient: gradient * bad
    )
    assert not engine.step(batch, 0.01, range(4)).finite
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(engine).items())
    after = [value for kept in engine.optimizer.state.values() for value in kept.values()]
    assert all(map(torch.equal, after, moments)) and len(after) == len(moments)
    broken.remove()
    assert engine.step(batch, 0.01, range(4)).finite  # nothing of the bad gradient is left
    assert all(torch.isfinite(tensor).all() for tensor in weights(engine).values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(engine).items())


def test_dropout_follows_from_the_key(tiny_config: SqueezeBertConfig) -> None:
    config = tiny_config.model_copy(
        update={"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    )
    batch = divided(examples(config.vocab_size, 0), 2)
    losses = []
    for keys in ([1, 2], [1, 2], [1, 3], [4, 2]):
        torch.rand(5)  # what was drawn before must not matter
        losses.append(engine_for(config).step(batch, 0.01, keys).loss)
    assert losses[0] == losses[1] and len(set(losses)) == 3
    engine = engine_for(config)
    assert engine.evaluate(batch) == engine.evaluate(batch)


def test_a_step_without_a_label_of_one_kind_has_no_figure_for_it(
    tiny_config: SqueezeBertConfig,
) -> None:
    batch = examples(tiny_config.vocab_size, 0) | {"sop_labels": torch.full((ROWS,), IGNORED)}
    result = engine_for(tiny_config).step(divided(batch, 2), 0.01, range(2))
    assert set(result) == {"mlm_loss", "mlm_accuracy", "grad_norm"} and result.finite


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(0, 10**4))
def test_dropout_keys_are_seeds_of_their_own(seed: int, step: int, number: int) -> None:
    key = dropout_key(seed, step, number)
    assert 0 <= key < 2**63
    assert len({key, dropout_key(seed, step + 1, number), dropout_key(seed, step, number + 1)}) == 3


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_a_deferred_step_is_the_same_step(tiny_config: SqueezeBertConfig, name: str) -> None:
    """As a GPU takes it, which waits for no number: the fourth step of six has no finite
    gradient.
    """
    found = []
    for deferred in (False, True):
        engine = engine_for(tiny_config, deferred, name)
        results = []
        for number in range(6):
            bias: Tensor = engine.model.get_parameter("transformer.embeddings.LayerNorm.bias")
            hook = bias.register_hook(partial(torch.mul, float("nan") if number == 3 else 1.0))
            before = weights(engine)
            results.append(
                engine.step(divided(examples(tiny_config.vocab_size, number), 4), 0.01, range(4))
            )
            hook.remove()
            same = [torch.equal(tensor, before[name]) for name, tensor in weights(engine).items()]
            assert all(same) if number == 3 else not any(same)
        assert [result.finite for result in results] == [number != 3 for number in range(6)]
        moments = [value for state in engine.optimizer.state.values() for value in state.values()]
        found.append((results, [*weights(engine).values(), *moments]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert dict(other) == pytest.approx(dict(one), rel=1e-5, nan_ok=True)
    for tensor, deferred_one in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(deferred_one, tensor, rtol=1e-4, atol=1e-5)


def test_a_step_computes_the_copies_that_were_made_ahead(
    tiny_config: SqueezeBertConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a made-up GPU, as which only the thread that makes micro-batches sees the CPU."""
    batch = divided(examples(tiny_config.vocab_size, 0), 2)
    due = engine_for(tiny_config).step(batch, 0.01, range(2))

    engine = engine_for(tiny_config)
    engine.copy_ahead = True
    pinned: list[bool] = []

    def pin(batch: dict[str, Tensor], flags_as_bytes: bool) -> dict[str, Tensor]:
        pinned.append(flags_as_bytes)
        return dict(batch)

    class Copies:
        def __init__(self, micro_batches: list[dict[str, Tensor]], stream: str) -> None:
            assert stream == "of copies"
            self._copies = [
                {name: tensor.clone() for name, tensor in each.items()} for each in micro_batches
            ]

        def taken(self) -> list[dict[str, Tensor]]:
            return self._copies

    with monkeypatch.context() as patched:
        gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"))
        patched.setattr(engine, "accelerator", gpu)
        patched.setattr(torch.cuda, "device", lambda _: nullcontext())
        patched.setattr(torch.cuda, "Stream", lambda _: "of copies")
        patched.setattr(engine_module, "CopiesAhead", Copies)
        patched.setattr(engine_module, "pinned", pin)
        prepared = engine.prepare(batch)
    assert pinned == [True, True] and prepared.copies is not None
    for each in prepared:
        each["input_ids"].zero_()  # only the copies are computed
    assert dict(engine.step(prepared, 0.01, range(2))) == dict(due)


def operations(config: SqueezeBertConfig, layers: int) -> Counter[str]:
    """The operations of a deferred update: on a GPU, those on lists are few launches."""
    engine = engine_for(config.model_copy(update={"num_hidden_layers": layers}), deferred=True)
    engine.step([examples(config.vocab_size, 0)], 0.01, [0])
    for group in engine.optimizer.param_groups:
        group["lr"] = torch.tensor(0.01)  # as in a CUDA graph
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        engine._update_deferred()
    return Counter(event.name for event in profiler.events() if event.cpu_parent is None)


def test_a_deferred_update_reads_no_number_and_more_layers_are_not_more_launches(
    tiny_config: SqueezeBertConfig,
) -> None:
    few, many = operations(tiny_config, 1), operations(tiny_config, 3)
    # Each of these waits for the device.
    assert not {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero"} & many.keys()
    # On a CPU, norms are taken tensor by tensor, and views cost nothing.
    of_each = {"aten::linalg_vector_norm", "aten::flatten", "aten::view", "aten::to"}
    assert {name: n for name, n in few.items() if name not in of_each} == {
        name: n for name, n in many.items() if name not in of_each
    }


def test_the_figures_of_a_deferred_step_are_read_when_they_are_asked_for() -> None:
    calls: list[None] = []

    def read() -> dict[str, float]:
        calls.append(None)
        return {"mlm_loss": 2.0, "grad_norm": 1.0}

    result = StepResult(read)
    assert not calls
    assert (
        result.loss == 2.0 and result.finite and dict(result) == {"mlm_loss": 2.0, "grad_norm": 1.0}
    )
    assert len(calls) == 1


def test_whole_numbers_of_32_bits_are_the_same_batch(tiny_config: SqueezeBertConfig) -> None:
    batch = examples(tiny_config.vocab_size, 0)
    small = {name: tensor.int() for name, tensor in batch.items()}
    results = [
        engine_for(tiny_config).step(divided(one, 2), 0.01, range(2)) for one in (batch, small)
    ]
    assert dict(results[0]) == dict(results[1])


def test_a_prepared_step_knows_its_labels_and_tokens(tiny_config: SqueezeBertConfig) -> None:
    batch = examples(tiny_config.vocab_size, 0)
    prepared = engine_for(tiny_config).prepare(divided(batch, 4))
    assert prepared.counts == {
        name: float((batch[label] != IGNORED).sum()) for name, label in LABELS.items()
    }
    assert prepared.tokens == float(batch["attention_mask"].sum()) and len(prepared) == 4
