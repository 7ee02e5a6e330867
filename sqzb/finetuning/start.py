"""The model that finetuning starts from."""

from typing import Any

import torch

from sqzb.data.dataset import DataSet, Number, Tags
from sqzb.finetuning.labels import problem_type
from sqzb.model.open import Classifier, Opened, Source, open_classifier
from sqzb.model.scale import put_on_scale
from sqzb.recipe import FinetuneRecipe


def build_model(recipe: FinetuneRecipe, data: DataSet, source: Source) -> Opened[Classifier]:
    """Return the model to start from, with a new head for the data set's labels.

    Raises:
        UserError: the model cannot be opened, or cannot learn labels of this kind.
    """
    torch.manual_seed(recipe.seed)
    kind = data.kind
    changes: dict[str, Any] = {"id2label": kind.id2label, "problem_type": problem_type(kind)}
    if recipe.dropout is not None:
        changes |= {
            "hidden_dropout_prob": recipe.dropout,
            "attention_probs_dropout_prob": recipe.dropout,
        }
    is_tags = isinstance(kind, Tags)
    opened = open_classifier(source, recipe.from_scratch, is_tags, **changes)
    if isinstance(kind, Number):
        put_on_scale(opened.model, kind, recipe.model)
    return opened
