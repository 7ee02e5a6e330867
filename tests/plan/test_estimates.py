"""Estimates against what torch does: parameters, saved tensors, checkpoints."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.layers import GroupedLinear
from sqzb.plan.estimates import Workload, matrix_parameters
from sqzb.plan.hardware import FULL_STEP, LEAST_STEP, Machine, devices, machine
from sqzb.plan.workloads import of_pretraining
from sqzb.recipe import Optimizer, PretrainRecipe, load_recipe
from sqzb.training import checkpoints
from sqzb.training.optimizers import make_optimizer


def workload(config: SqueezeBertConfig, length: int = 32, precision: str = "fp32") -> Workload:
    return Workload(config, 100, 64, length, 5, 2, precision, None, 2)


def model_of(config: SqueezeBertConfig) -> SqueezeBertForPreTraining:
    return SqueezeBertForPreTraining(config).train()


def saved_bytes(work: Workload, micro_batch: int) -> int:
    """Return the bytes of the tensors that autograd keeps, without parameters."""
    model = model_of(work.config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.ones(micro_batch, work.length, dtype=torch.long)
    masked = ids[:, : work.predictions].contiguous()
    bf16 = work.precision == "bf16"
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        sums = model(
            input_ids=ids,
            attention_mask=ids,
            token_type_ids=torch.zeros_like(ids),
            mlm_positions=masked,
            mlm_labels=masked,
            sop_labels=ids[:, 0].contiguous(),
        ).loss_sums
    assert sums
    return sum(sizes.values())


@given(
    width=st.sampled_from([32, 64, 96]),
    layers=st.integers(2, 4),
    middle=st.sampled_from([64, 256]),
    vocabulary=st.sampled_from([200, 2000]),
    length=st.sampled_from([16, 48]),
    micro_batch=st.sampled_from([8, 16]),
    precision=st.sampled_from(["fp32", "bf16"]),
)
@settings(max_examples=scaled(6))
def test_activations_are_those_that_autograd_saves(
    width: int,
    layers: int,
    middle: int,
    vocabulary: int,
    length: int,
    micro_batch: int,
    precision: str,
) -> None:
    config = SqueezeBertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=middle,
    )
    work = workload(config, length, precision)
    logits = 4 * micro_batch * work.predictions * vocabulary  # their gradient comes later
    expected = saved_bytes(work, micro_batch) + logits
    assert 0.75 < work.activations(micro_batch) / expected < 1.25


def test_parameters_and_checkpoint_are_the_models() -> None:
    config = SqueezeBertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    model = model_of(config)
    work = workload(config)
    assert work.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert work.checkpoint_bytes() == checkpoints.size(model)


@pytest.mark.parametrize("groups", [1, 4])
def test_muon_keeps_one_moment_of_the_matrices_and_adamw_two(groups: int) -> None:
    config = SqueezeBertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, q_groups=groups
    )
    model = model_of(config)
    layers = [layer for layer in model.modules() if isinstance(layer, GroupedLinear)]
    assert matrix_parameters(config) == sum(layer.weight.numel() for layer in layers)
    for name in ("lamb", "adamw", "muon"):
        optimizer = make_optimizer(Optimizer.model_validate({"name": name}), model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        kept = [value for state in optimizer.state.values() for value in state.values()]
        work = workload(config)._replace(is_muon=name == "muon")
        assert work.moments == sum(value.numel() for value in kept if value.ndim)
        assert work.checkpoint_bytes() == checkpoints.size(model, work.moments)
        assert work.memory(1)["moments"] == 4 * work.moments


def test_an_average_is_a_copy_of_the_weights() -> None:
    work = workload(SqueezeBertConfig())
    averaged = work._replace(is_averaged=True)
    copy = 4 * work.parameters
    assert averaged.checkpoint_bytes() - work.checkpoint_bytes() == copy
    assert sum(averaged.memory(1).values()) - sum(work.memory(1).values()) == copy
    assert averaged.moments == work.moments and "average" not in work.memory(1)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "LAMB, rate 0.0025 after 28 warmup steps"),
        (["optimizer.name=adamw"], "AdamW, rate 0.001 after 28 warmup steps"),
        (
            ["optimizer.name=muon", "optimizer.schedule=wsd"],
            "Muon, rate 0.02 after 28 warmup steps, AdamW for the rest at 0.001, wsd",
        ),
    ],
)
def test_the_plan_names_the_optimizer(keys: list[str], text: str) -> None:
    recipe = load_recipe(PretrainRecipe, None, ["model={}", "steps=100", *keys])
    planned = of_pretraining(recipe)
    assert planned.optimizer == text
    assert planned.workload.is_muon == ("optimizer.name=muon" in keys)


@given(micro_batch=st.integers(1, 64), memory=st.integers(16, 200))
def test_the_micro_batch_that_fits_is_the_largest_divisor(micro_batch: int, memory: int) -> None:
    work = workload(SqueezeBertConfig(), 128)._replace(batch=8192)
    device = devices()[0].model_copy(update={"memory": memory, "name": "another"})
    fit = work.fitting(Machine(device, 1))
    room = 0.9e9 * memory
    assert 8192 % fit == 0 and sum(work.memory(fit).values()) <= room
    assert fit == 8192 or sum(work.memory(2 * fit).values()) > room
    assert work._replace(micro_batch=micro_batch).fitting(Machine(device, 1)) == micro_batch


def test_the_largest_batches_are_those_that_an_h200_took() -> None:
    """`micro_batch: auto` chose 2,048 of 128 tokens and 512 of 512 tokens on an H200."""
    for length, largest, predictions in ((128, 2048, 20), (512, 512, 80)):
        work = Workload(SqueezeBertConfig(), 1, 8192, length, predictions, 2, "bf16", None, 2)
        assert work.fitting(machine("H200")) == largest


def test_more_devices_take_less_time() -> None:
    work = workload(SqueezeBertConfig(), 128, "bf16")._replace(batch=8192)
    one, measured = work.seconds(machine("H200"))
    eight, _ = work.seconds(machine("8x h200"))
    assert eight == one / 8 and measured is not None
    assert one == work.positions / measured.positions


@given(
    batch=st.integers(1, 2048),
    length=st.sampled_from([32, 128, 512]),
    precision=st.sampled_from(["fp32", "bf16"]),
    name=st.sampled_from([device.name for device in devices()]),
    number=st.integers(1, 8),
)
def test_no_measurement_stands_for_small_steps(
    batch: int, length: int, precision: str, name: str, number: int
) -> None:
    """A finetuning by 16 cannot have the speed of pretraining by 8,192."""
    work = workload(SqueezeBertConfig(), length, precision)._replace(batch=batch)
    on = machine(f"{number}x {name}")
    seconds, measured = work.seconds(on)
    per_device = batch * length / number
    assert work.has_small_steps(on) == (per_device < FULL_STEP)
    if work.has_small_steps(on):
        assert measured is None and seconds >= work.steps * LEAST_STEP
    small_model = work._replace(config=SqueezeBertConfig(num_hidden_layers=2))
    assert small_model.seconds(on)[0] < seconds
