"""The switches of pretraining: each is off by default, and does one thing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pretraining_runs import at
from sqzb.corpus.store import Corpus
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout
from sqzb.pretraining.job import pretrain
from sqzb.pretraining.start import build_model
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training.engine import Evaluator, start_accelerator
from stopped_runs import lines

STEPS = 8


@pytest.fixture
def recipe(corpus: Corpus, tiny_config: SqueezeBertConfig) -> PretrainRecipe:
    return PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=32,
        max_predictions=16,
        model=tiny_config,
        steps=STEPS,
        global_batch=16,
        micro_batch=16,
        log_every=1,
    )


def changed(recipe: PretrainRecipe, **values: Any) -> PretrainRecipe:
    return PretrainRecipe.model_validate(recipe.model_dump() | values)


def test_a_unigram_bias_is_the_loss_of_token_frequencies(
    recipe: PretrainRecipe, corpus: Corpus
) -> None:
    examples = Examples(recipe, corpus, BatchLayout(16, 16, 1, 0))
    losses = []
    for is_on in (False, True):
        initialisation = {"unigram_bias": is_on}
        model = build_model(changed(recipe, initialisation=initialisation), corpus)
        evaluator = Evaluator(start_accelerator(), model, LABELS)
        losses.append(evaluate_heldout(evaluator, examples, None)["heldout_mlm_loss"])
    unigram = corpus.manifest["heldout_unigram_nats"]
    # Masks are drawn, and the random weights add a little.
    assert abs(losses[1] - unigram) < 0.15 < losses[0] - unigram - 0.5


def test_the_bias_changes_nothing_else(recipe: PretrainRecipe, corpus: Corpus) -> None:
    plain = build_model(recipe, corpus).state_dict()
    biased = build_model(changed(recipe, initialisation={"unigram_bias": True}), corpus)
    names = {name for name, one in biased.state_dict().items() if not torch.equal(one, plain[name])}
    assert names == {"cls.predictions.bias"}


def test_writing_layers_are_scaled_by_depth(recipe: PretrainRecipe, corpus: Corpus) -> None:
    plain = build_model(recipe, corpus)
    scaled = build_model(changed(recipe, initialisation={"depth_scaled": True}), corpus)
    assert isinstance(scaled, SqueezeBertForPreTraining)
    weights = plain.state_dict()
    for name, one in scaled.state_dict().items():
        parts = ("post_attention.conv1d.weight", ".output.conv1d.weight")
        factor = 0.5 if name.endswith(parts) else 1.0  # two layers: sqrt(2 x 2)
        torch.testing.assert_close(one, factor * weights[name])


def test_the_masking_rate_falls_in_quarters(recipe: PretrainRecipe, corpus: Corpus) -> None:
    falling = changed(recipe, masking_rate=0.4, masking_rate_end=0.1)
    examples = Examples(falling, corpus, BatchLayout(16, 16, 1, 0))
    plain = Examples(changed(recipe, masking_rate=0.4), corpus, BatchLayout(16, 16, 1, 0))
    for step, rate in zip(range(STEPS), (0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1), strict=True):
        (batch,), (usual,) = examples.of_step(step), plain.of_step(step)
        predicted = (batch["mlm_labels"] != IGNORED).sum() / batch["attention_mask"].sum()
        assert abs(float(predicted) - rate) < 0.03
        assert torch.equal(batch["attention_mask"], usual["attention_mask"])
        same = batch["mlm_labels"].shape == usual["mlm_labels"].shape
        assert same == (rate == 0.4)
        if same:
            assert all(torch.equal(batch[name], usual[name]) for name in usual)


def test_a_run_with_every_switch_finishes(recipe: PretrainRecipe, tmp_path: Path) -> None:
    keys = {
        "initialisation": {"unigram_bias": True, "depth_scaled": True},
        "masking_rate_end": 0.3,
    }
    run = pretrain(at(changed(recipe, **keys), tmp_path / "run"))
    saved = load_recipe(PretrainRecipe, run / "recipe.yaml")
    assert saved.masking_rate_end == 0.3 and saved.initialisation.unigram_bias
    assert [line["step"] for line in lines(run) if "loss" in line] == list(range(1, STEPS + 1))
