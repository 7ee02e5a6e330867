"""eval: a finetuned model on its task, or a pretrained one on the held-out part of a corpus."""

import contextlib
from pathlib import Path
from typing import Any

from sqzb.corpus.store import Corpus
from sqzb.errors import RecipeError, UserError
from sqzb.finetuning import trainer as finetuning
from sqzb.finetuning.data import load_split
from sqzb.finetuning.evaluation import encode, evaluate_splits
from sqzb.finetuning.tasks import task
from sqzb.hub import local_folder
from sqzb.model import SqueezeBertForPreTraining, SqueezeBertForSequenceClassification
from sqzb.model.checkpoint import SOP_HEAD
from sqzb.pretraining import trainer as pretraining
from sqzb.pretraining.examples import Examples, Share
from sqzb.pretraining.start import check_fit, check_vocabulary
from sqzb.recipe import FinetuneRecipe, PretrainRecipe, Recipe, load_recipe
from sqzb.tokenizer import load_tokenizer
from sqzb.training.engine import Evaluator, start_accelerator
from sqzb.training.runlog import RECIPE


def evaluate_task(path: str, task_name: str | None, glue_dir: Path | None) -> dict[str, Any]:
    """Print and return the metrics of a finetuned model on its task's validation split."""
    folder = local_folder(path)
    recipe = _finetune_recipe(path)
    name = task_name or recipe.task
    if name is None:
        raise UserError(
            f"{path} does not say what it is for: give --task of a finetuned model, --corpus of a pretrained."
        )
    chosen = task(name)
    model = SqueezeBertForSequenceClassification.from_pretrained(folder)
    labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    if not chosen.regression and labels != chosen.labels:
        raise UserError(
            f"The model in {folder} has the labels {', '.join(labels)}, and {chosen.name} has "
            f"{', '.join(chosen.labels)}. Give the task that it was finetuned on."
        )
    tokenizer = load_tokenizer(folder)
    max_length = min(recipe.max_length, model.config.max_position_embeddings)
    splits = {
        split: encode(load_split(chosen, split, glue_dir), tokenizer, max_length, chosen.regression)
        for split in chosen.validation_splits
    }
    accelerator = start_accelerator()
    figures = evaluate_splits(model.to(accelerator.device), splits, chosen, accelerator)
    finetuning.report(f"{path} on {chosen.name}", chosen, figures, splits)
    return {"path": path, "task": chosen.name, "split": "validation"} | figures


def evaluate_corpus(path: str, corpus_folder: Path) -> dict[str, Any]:
    """Print and return the held-out losses and accuracies of a pretrained model.

    A run is evaluated as it was trained; any other model at every length of the corpus that it can take.
    """
    corpus = Corpus(corpus_folder)
    model = SqueezeBertForPreTraining.from_pretrained(path)
    has_sop = (local_folder(path) / SOP_HEAD).exists()  # else the model's is a new one, and knows nothing
    accelerator = start_accelerator()
    found: dict[str, Any] = {"path": path, "corpus": str(corpus_folder)}
    for recipe in _pretrain_recipes(path, corpus, model.config.max_position_embeddings):
        check_fit(model.config, recipe, corpus, path)
        check_vocabulary(path, corpus)
        assert isinstance(recipe.micro_batch, int)  # a run's recipe holds the one that was found
        share = Share(recipe.micro_batch, recipe.micro_batch, accelerator.num_processes, accelerator.process_index)
        examples = Examples(recipe, corpus, share)
        measured = Evaluator(accelerator, model, pretraining.LABELS).evaluate(examples.of_heldout(None))
        figures = {
            f"heldout_{name}": value for name, value in measured.items() if has_sop or not name.startswith("sop")
        }
        pretraining.report(f"{path} at length {recipe.sequence_length}", figures, corpus)
        found[f"length_{recipe.sequence_length}"] = figures | {"sequences": len(examples.heldout)}
    return found | {"heldout_unigram_nats": corpus.manifest["heldout_unigram_nats"]}


def _recipe_of(path: str, kind: type[Recipe]) -> Recipe | None:
    """The resolved recipe of the run that `path` is, or is the final/ of, where it is of this kind."""
    for resolved in (Path(path) / RECIPE, Path(path).parent / RECIPE):
        if resolved.exists():
            with contextlib.suppress(RecipeError):
                return load_recipe(kind, resolved)
    return None


def _finetune_recipe(path: str) -> FinetuneRecipe:
    recipe = _recipe_of(path, FinetuneRecipe)
    return recipe if recipe is not None else FinetuneRecipe()


def _pretrain_recipes(path: str, corpus: Corpus, positions: int) -> list[PretrainRecipe]:
    recipe = _recipe_of(path, PretrainRecipe)
    if recipe is not None:
        return [recipe]
    lengths = [length for length in corpus.manifest["sequence_lengths"] if length <= positions]
    return [PretrainRecipe(sequence_length=n, max_predictions=round(0.15 * n) + 1) for n in lengths]
