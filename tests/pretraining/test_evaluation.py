"""The held-out figures at the recipe's masks, and at those that are the same for all recipes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqzb.corpus.store import Corpus
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout
from sqzb.recipe import PretrainRecipe
from sqzb.training.engine import Evaluator, MicroBatch, start_accelerator

BERTS = {"masking": "token", "masking_rate": 0.15, "max_predictions": 5}
OTHERS = {"masking": "word", "masking_rate": 0.4, "max_predictions": 12}


def examples_of(corpus: Corpus, **keys: Any) -> Examples:
    recipe = PretrainRecipe(sequence_length=32, **keys)
    return Examples(recipe, corpus, BatchLayout(8, 8, 1, 0))


@given(
    masking=st.sampled_from(["token", "word", "ngram"]),
    rate=st.sampled_from([0.05, 0.15, 0.3]),
    most=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_yardstick_has_the_same_masks_for_every_recipe(
    corpus: Corpus, masking: str, rate: float, most: int, seed: int
) -> None:
    keys = {"masking": masking, "masking_rate": rate, "max_predictions": most, "seed": seed}
    examples, usual = examples_of(corpus, **keys), examples_of(corpus, **BERTS)
    pairs = zip(
        examples.of_heldout(12, yardstick=True), usual.of_heldout(12, yardstick=True), strict=True
    )
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    is_bert = (masking, rate) == ("token", 0.15) and most >= 5
    assert examples.has_yardstick_masks == is_bert
    own = zip(examples.of_heldout(12), usual.of_heldout(12, yardstick=True), strict=True)
    equal = [
        np.array_equal(ours["mlm_labels"], theirs["mlm_labels"])
        and torch.equal(ours["input_ids"], theirs["input_ids"])
        for ours, theirs in own
    ]
    assert all(equal) == is_bert


def test_the_yardstick_predicts_15_per_cent(corpus: Corpus) -> None:
    predicted = tokens = 0
    for batch in examples_of(corpus, **OTHERS).of_heldout(None, yardstick=True):
        predicted += int((batch["mlm_labels"] != IGNORED).sum())
        tokens += int(batch["attention_mask"].sum())
    assert 0.13 < predicted / tokens < 0.17


@pytest.mark.parametrize(("keys", "evaluations"), [(BERTS, 1), (OTHERS, 2)])
def test_recipes_of_other_masks_have_one_yardstick(
    corpus: Corpus,
    tiny_config: SqueezeBertConfig,
    keys: dict[str, Any],
    evaluations: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = SqueezeBertForPreTraining(tiny_config)
    calls: list[None] = []
    own = Evaluator.evaluate

    def evaluate(evaluator: Evaluator, batches: Iterator[MicroBatch]) -> dict[str, float]:
        calls.append(None)
        return own(evaluator, batches)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    evaluator = Evaluator(start_accelerator(), model, LABELS)
    figures = evaluate_heldout(evaluator, examples_of(corpus, **keys), 40)
    assert len(calls) == evaluations
    usual = evaluate_heldout(evaluator, examples_of(corpus, **BERTS), 40)
    names = [f"{part}_{figure}" for part in ("mlm", "sop") for figure in ("loss", "accuracy")]
    assert set(figures) == {
        *(f"heldout_{name}" for name in names),
        "heldout_mlm_loss_15",
        "heldout_mlm_accuracy_15",
    }
    for name in ("mlm_loss", "mlm_accuracy"):
        assert figures[f"heldout_{name}_15"] == usual[f"heldout_{name}"]
        assert usual[f"heldout_{name}_15"] == usual[f"heldout_{name}"]
    assert (figures["heldout_mlm_loss"] == usual["heldout_mlm_loss"]) == (evaluations == 1)
