"""The model cards of finished finetunings of each kind, whose lines of Python are run."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cards import read_card, results, run_usage, text_of
from conftest import WORDS
from glue_runs import finetune as finetune_on_glue
from own_runs import KINDS, own_data
from saved_runs import save_run
from sqzb.data.own import KindName
from sqzb.finetuning.job import finetune
from sqzb.recipe import FinetuneRecipe
from sqzb.training.run_folder import final_figures
from sqzb.using import ClassPrediction, LabelsPrediction, NumberPrediction
from stopped_runs import write_task

ANSWERS: dict[KindName, type[Any]] = {
    "classes": ClassPrediction,
    "number": NumberPrediction,
    "labels": LabelsPrediction,
}


def recipe(model: Path, output: Path, **changes: object) -> FinetuneRecipe:
    sizes = {"epochs": 1, "batch": 16, "max_length": 16}
    paths = {"model": str(model), "output": str(output)}
    return FinetuneRecipe.model_validate({**sizes, **paths, **changes})


@pytest.fixture
def start(tmp_path: Path, vocabulary: Path) -> Path:
    return save_run(tmp_path / "start", vocabulary)


def check(run: Path, private: Path) -> None:
    """Check what every card has: figures of the run, and no path of this machine."""
    text, figures = text_of(run), final_figures(run)
    assert figures is not None and results(run) == pytest.approx(figures, abs=1e-6)
    for path in (private, Path.home(), Path.cwd()):
        assert str(path) not in text
    for file in (run / "final").rglob("*.json"):  # these go to the Hub too
        assert str(private) not in file.read_text(encoding="utf-8")
    for part in ("## Use", "## Data", "## Figures", "## Recipe", "limits", "time and hardware"):
        assert part in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_own_data(start: Path, tmp_path: Path, kind: KindName) -> None:
    data, run = own_data(tmp_path / "rows", kind), tmp_path / "run"
    settings = recipe(start, run, seed=3, keep_best=True)
    finetune(settings, data)
    check(run, tmp_path)
    card = read_card(run)
    is_tags = kind == "tokens"
    assert card.pipeline_tag == ("token-classification" if is_tags else "text-classification")
    assert card.datasets is None and card.base_model is None and card.license is None
    text = text_of(run)
    assert all(file.sha256 in text for files in data.known.files.values() for file in files)
    assert all(f"| {name} |" in text for name in data.kind.names)
    assert "| train | 160 |" in text and "The best of several models" in text
    of_transformers, ours = run_usage(run)
    assert isinstance(of_transformers["answer"], list)
    if not is_tags:
        assert (
            of_transformers["answer"][0]["label"]
            in of_transformers["classify"].model.config.id2label.values()
        )
        assert isinstance(next(iter(ours["answer"])), ANSWERS[kind])
    if kind == "number":
        (number,) = ours["answer"]
        assert of_transformers["answer"][0]["score"] == pytest.approx(number.value, rel=1e-4)
    # A run that is resumed after its end writes the same card.
    finetune(settings, data, resume="auto")
    assert text_of(run) == text


def test_a_glue_task(start: Path, tmp_path: Path) -> None:
    write_task(tmp_path, 32)
    run = tmp_path / "run"
    finetune_on_glue(recipe(start, run, task="mrpc", from_scratch=True), tmp_path)
    check(run, tmp_path)
    card = read_card(run)
    assert card.datasets == ["nyu-mll/glue"] and card.language == "en"
    assert {(one.dataset_type, one.dataset_config) for one in card.eval_results or []} == {
        ("nyu-mll/glue", "mrpc")
    }
    assert {one.metric_type for one in card.eval_results or []} == {"accuracy", "f1", "score"}
    assert "random weights" in text_of(run) and "| 0 | not_equivalent |" in text_of(run)
    for block in run_usage(run):
        assert len(list(block["answer"])) in (1, 2)  # an older transformers gives a pair's alone


def test_the_halves_of_mnli_are_splits(start: Path, tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    labels = ("entailment", "neutral", "contradiction")
    for n, name in enumerate(("train", "dev_matched", "dev_mismatched")):
        rows = [f"{WORDS[i % 9]}\tstone\t{labels[i % 3]}" for i in range(30 + n)]
        lines = ["sentence1\tsentence2\tgold_label", *rows]
        (tmp_path / "MNLI" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    finetune_on_glue(recipe(start, run, task="mnli"), tmp_path)
    check(run, tmp_path)
    found = {one.metric_name: one.dataset_split for one in read_card(run).eval_results or []}
    assert found == {
        "matched_accuracy": "validation_matched",
        "mismatched_accuracy": "validation_mismatched",
        "score": "validation",
    }


def test_a_model_of_transformers(tmp_path: Path, vocabulary: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(
        **sizes, vocab_size=150, intermediate_size=16, max_position_embeddings=32
    )
    start = tmp_path / "start"
    transformers.BertModel(config).save_pretrained(start)
    for file in vocabulary.iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    run = tmp_path / "run"
    finetune(recipe(start, run), own_data(tmp_path / "rows", "classes"))
    check(run, tmp_path)
    assert read_card(run).tags == ["bert", "sqzb"]
    assert "SqueezeBERT" not in text_of(run)
    assert len(run_usage(run)) == 2
