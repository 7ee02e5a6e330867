"""Runs of tiny models with random weights, as finished runs are on disk."""

from pathlib import Path
from typing import Any

import torch

from sqzb.data.dataset import Classes
from sqzb.data.known import Known
from sqzb.finetuning.data import write_known
from sqzb.glue.tasks import TASKS
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from sqzb.model.checkpoint import SavedModel
from sqzb.recipe import FinetuneRecipe, dump_recipe
from sqzb.tokenizer import load_tokenizer


def save_run(
    folder: Path,
    vocabulary: Path,
    labels: tuple[str, ...] | None = None,
    task: str | None = None,
    max_length: int = 128,
    tokens: bool = False,
    **config: Any,
) -> Path:
    """Write a classifier with these labels, or with a GLUE task's; without either a pretrained one.

    The run has a recipe where there is a task. tokens: whether the labels are tags of words;
    config: further fields of the configuration.
    """
    if task is not None:
        labels = TASKS[task].labels or ("score",)
    tokenizer = load_tokenizer(vocabulary)
    torch.manual_seed(0)
    sizes = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,  # so that no two answers are close
        id2label=dict(enumerate(labels or ("a", "b"))),
        **config,
    )
    model: type[SavedModel] = SqueezeBertForPreTraining
    if labels is not None:
        model = SqueezeBertForSequenceClassification
    if tokens:
        model = SqueezeBertForTokenClassification
    model(sizes).save_pretrained(folder / "final", tokenizer)
    if task is not None:
        recipe = FinetuneRecipe(task=task, max_length=max_length)
        (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return folder


def remember(run: Path, *text: str) -> None:
    """Let a run have been trained on a user's own data with these columns of texts."""
    write_known(run, Known("reviews", text, "label", (), Classes(("a", "b"))))
