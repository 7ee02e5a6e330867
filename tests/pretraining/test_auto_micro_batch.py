"""micro_batch: auto takes the largest that fits, and a run keeps what it has found."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.pretraining.auto_micro_batch import auto_micro_batch, divisors, largest_fitting
from sqzb.recipe import PretrainRecipe, dump_recipe


@pytest.mark.parametrize(
    ("share", "limit", "found"),
    [(64, 64, 64), (64, 63, 32), (96, 50, 48), (30, 1, 1), (7, 6, 1), (1, 0, 1), (12, 0, 1)],
)
def test_it_is_the_largest_divisor_that_does_not_run_out_of_memory(
    share: int, limit: int, found: int
) -> None:
    tried = []

    def attempt(n: int) -> None:
        tried.append(n)
        if n > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    assert largest_fitting(divisors(share), attempt) == found
    assert tried == [n for n in divisors(share)[::-1] if n > 1 and n >= found]


def test_another_error_is_not_taken_for_too_little_memory() -> None:
    def attempt(n: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_fitting(divisors(8), attempt)


@pytest.fixture
def recipe(tiny_config: SqueezeBertConfig) -> PretrainRecipe:
    return PretrainRecipe(
        model=tiny_config,
        sequence_length=16,
        max_predictions=3,
        global_batch=96,
        micro_batch="auto",
    )


@pytest.fixture
def model(tiny_config: SqueezeBertConfig) -> SqueezeBertForPreTraining:
    return SqueezeBertForPreTraining(tiny_config)


def test_a_cpu_takes_at_most_64_and_a_quarter_of_the_memory(
    recipe: PretrainRecipe,
    model: SqueezeBertForPreTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert auto_micro_batch(recipe, model, Accelerator(cpu=True), tmp_path) == 48
    for n in (1, 6, 24):
        need = total(costs(model.config, n, 16, 3, labels=2)).bytes
        monkeypatch.setattr(
            os, "sysconf", {"SC_PHYS_PAGES": 4 * need, "SC_PAGE_SIZE": 1}.__getitem__
        )
        assert auto_micro_batch(recipe, model, Accelerator(cpu=True), tmp_path) == n


def test_what_the_run_has_recorded_is_kept_while_it_divides_the_batch(
    recipe: PretrainRecipe, model: SqueezeBertForPreTraining, tmp_path: Path
) -> None:
    for recorded, found in ((8, 8), (96, 96), (32, 32), ("auto", 48)):
        text = dump_recipe(recipe.model_copy(update={"micro_batch": recorded}))
        (tmp_path / "recipe.yaml").write_text(text)
        assert auto_micro_batch(recipe, model, Accelerator(cpu=True), tmp_path) == found
    (tmp_path / "recipe.yaml").write_text(
        dump_recipe(recipe.model_copy(update={"micro_batch": 32}))
    )
    other = recipe.model_copy(update={"global_batch": 90})
    assert auto_micro_batch(other, model, Accelerator(cpu=True), tmp_path) == 45


class Meta(Accelerator):  # type: ignore[misc]
    """A device that is no CPU, and has no memory to run out of."""

    device = torch.device("meta")


def test_another_device_is_tried_with_a_whole_forward_and_backward(
    recipe: PretrainRecipe,
    model: SqueezeBertForPreTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, tried = SqueezeBertForPreTraining.forward, []

    def forward(self: SqueezeBertForPreTraining, **batch: torch.Tensor) -> Any:
        tried.append({name: tuple(tensor.shape) for name, tensor in batch.items()})
        output = own(self, **batch)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return output

    monkeypatch.setattr(SqueezeBertForPreTraining, "forward", forward)
    assert auto_micro_batch(recipe, model, Meta(), tmp_path) == 48
    shapes = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (48, 16))
    assert tried[1] == {
        **shapes,
        "mlm_positions": (48, 3),
        "mlm_labels": (48, 3),
        "sop_labels": (48,),
    }
    assert all(parameter.grad is None for parameter in model.parameters())
