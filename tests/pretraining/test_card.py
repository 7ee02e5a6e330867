"""The model card of a finished pretraining."""

from pathlib import Path

import pytest

from cards import read_card, results, run_usage, text_of
from pretraining_runs import at
from sqzb.corpus.store import Corpus
from sqzb.files import sha256
from sqzb.model import SqueezeBertConfig
from sqzb.pretraining.job import pretrain
from sqzb.recipe import PretrainRecipe
from sqzb.training.run_folder import evaluations


def test_the_card_of_a_pretraining_and_of_one_that_starts_from_it(
    corpus: Corpus, tiny_config: SqueezeBertConfig, tmp_path: Path
) -> None:
    recipe = PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=16,
        max_predictions=3,
        model=tiny_config,
        steps=2,
        global_batch=8,
        micro_batch=8,
    )
    first, second = tmp_path / "first", tmp_path / "second"
    pretrain(at(recipe, first))
    pretrain(at(recipe, second, model=None, start_from=str(first)))
    for run in (first, second):
        text, card = text_of(run), read_card(run)
        assert card.pipeline_tag == "fill-mask" and card.language == "en"
        assert card.license is None and card.datasets is None and card.base_model is None
        figures = {
            name.removeprefix("heldout_"): value
            for name, value in evaluations(run)[-1].items()
            if name.startswith("heldout_")
        }
        assert results(run) == pytest.approx(figures, abs=1e-6)
        assert str(tmp_path) not in text and str(corpus.folder) not in text
        assert sha256(corpus.folder / "manifest.json") in text
        ((filled),) = run_usage(run)
        assert len(filled["answer"]) == 5
    assert "random weights" in text_of(first)
    assert "another model of its author" in text_of(second)
    before = text_of(second)
    pretrain(at(recipe, second, model=None, start_from=str(first)), resume="auto")
    assert text_of(second) == before
