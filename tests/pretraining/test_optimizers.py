"""Runs with each optimizer and with averaged weights: a resume changes nothing, bit by bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pretraining_runs import at, equal, weights
from sqzb.corpus.store import Corpus
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig
from sqzb.pretraining.job import Pretraining, pretrain
from sqzb.recipe import Optimizer, PretrainRecipe
from sqzb.recipe.optimizer import Averaging
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, StepResult
from stopped_runs import lines

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"schedule": "wsd", "warmup": 0.2, "cooldown": 0.4},
    "muon": {"schedule": "cosine", "warmup": 0.2, "floor": 0.1, "lr": 0.01},
}


@pytest.fixture(scope="module", params=OPTIMIZERS)
def recipe(request: pytest.FixtureRequest, corpus: Corpus) -> PretrainRecipe:
    """10 steps, of which the last 6 are averaged."""
    optimizer = {"name": request.param, **OPTIMIZERS[request.param]}
    return PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=16,
        max_predictions=4,
        masking_rate=0.25,
        model=SqueezeBertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=16,
        ),
        steps=10,
        global_batch=8,
        micro_batch=8,
        log_every=1,
        optimizer=Optimizer.model_validate(optimizer),
        averaging=Averaging(share=0.6, every=2),
        evaluate_every=3,
        evaluate_sequences=8,
        checkpoint_every=4,
        keep_checkpoints=3,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: PretrainRecipe) -> Path:
    """The undisturbed run of `recipe`."""
    return pretrain(at(recipe, tmp_path_factory.mktemp("runs") / "whole"))


def tensors(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of every file of every checkpoint."""
    files = sorted(run.glob("checkpoints/*/*.safetensors"))
    return {str(path.relative_to(run)): load_file(path) for path in files}


@pytest.mark.parametrize("crash", [6, 10])
def test_a_crash_and_a_resume_change_nothing(
    recipe: PretrainRecipe,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crash: int,
) -> None:
    with monkeypatch.context() as patched:
        own = Engine.step
        calls: list[None] = []

        def step(*args: Any) -> StepResult:
            calls.append(None)
            if len(calls) == crash:
                raise MemoryError("killed")
            return own(*args)

        patched.setattr(Engine, "step", step)
        with pytest.raises(MemoryError):
            pretrain(at(recipe, tmp_path / "crashed"))
    crashed = pretrain(at(recipe, tmp_path / "crashed"), resume="auto")
    assert lines(crashed) == lines(whole) and equal(weights(crashed), weights(whole))
    ours, theirs = tensors(crashed), tensors(whole)
    assert ours.keys() == theirs.keys()
    assert all(equal(ours[name], theirs[name]) for name in ours)
    averaged = {name for name in theirs if name.endswith(checkpoints.AVERAGE)}
    assert averaged == {f"checkpoints/step-{step:07d}/average.safetensors" for step in (8, 10)}


def test_a_checkpoint_has_the_planned_size(recipe: PretrainRecipe, whole: Path) -> None:
    job = Pretraining(at(recipe, whole), whole)
    tensor_files = (whole / "checkpoints" / "step-0000010").glob("*.safetensors")
    numbers = 0
    for path in tensor_files:
        # AdamW counts the steps of each parameter, in numbers without a dimension.
        numbers += sum(tensor.numel() for tensor in load_file(path).values() if tensor.ndim)
    planned = (job.checkpoint_bytes - 2**21) / 4
    # Without SOP's head, moments would be fewer; the saved model may have the tied matrix twice.
    assert planned == pytest.approx(numbers, rel=0.02)


def test_the_mean_is_evaluated_and_written_on_request(
    recipe: PretrainRecipe, whole: Path, tmp_path: Path
) -> None:
    asked = {"averaging": Averaging(share=0.6, every=2, final=True)}
    mean = pretrain(at(recipe, tmp_path / "mean", **asked))
    of_last, of_mean = lines(whole)[-1], lines(mean)[-1]
    assert of_last["heldout_mlm_loss_15_averaged"] == of_mean["heldout_mlm_loss_15"]
    assert of_last["heldout_mlm_loss_15"] != of_mean["heldout_mlm_loss_15"]
    kept = load_file(whole / "checkpoints" / "step-0000010" / checkpoints.AVERAGE)
    for name, tensor in weights(mean).items():
        if name in kept:
            assert torch.equal(tensor, kept[name])
    # The checkpoint has the weights of the last step in both runs.
    model = "checkpoints/step-0000010/model.safetensors"
    assert equal(load_file(whole / model), load_file(mean / model))


def test_nothing_is_averaged_by_default(
    recipe: PretrainRecipe, whole: Path, tmp_path: Path
) -> None:
    plain = pretrain(at(recipe, tmp_path / "plain", averaging=Averaging()))
    assert not list(plain.glob("checkpoints/*/average.safetensors"))
    assert not any(name.endswith("averaged") for line in lines(plain) for name in line)
    assert equal(weights(plain), weights(whole))  # averaging does not change the training


def test_another_optimizer_is_another_run(recipe: PretrainRecipe, whole: Path) -> None:
    state = json.loads((whole / "checkpoints/step-0000010/trainer.json").read_text())
    assert state["recipe"]["optimizer"]["name"] == recipe.optimizer.name
    with pytest.raises(UserError, match=r"optimizer\.name was"):
        pretrain(at(recipe, whole, optimizer=Optimizer(name="lamb")), resume="auto")
