"""sqzb predict: a quick look at what a model says about a text."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from sqzb.data.dataset import Classes, Example, Number
from sqzb.data.lines import Sentences, check_sentences
from sqzb.finetuning.data import open_data
from sqzb.finetuning.encode import encode
from sqzb.finetuning.predict import predict as logits_of
from sqzb.model.open import model_folder, open_classifier
from sqzb.recipe import FinetuneRecipe, number
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import recipe_of

Prediction = dict[
    str, float
]  # the probability of each label, in their order; of a regression "score" alone


def predict(
    path: str, rows: Sequence[Sentences], file: Path | None = None
) -> list[Prediction | None]:
    """What the finetuned model says of each row, None of one without sentences.

    path: a run, a saved model or a Hub id; file: where the rows are from, for errors. Texts longer than the run's
    max_length, or the model's positions, are cut as in training. Raises UserError when the model has no classifier, or
    its run's task takes another number of sentences.
    """
    folder = model_folder(path)
    recipe = recipe_of(str(folder.path), FinetuneRecipe)
    if recipe is not None and recipe.task is not None:
        data = open_data(recipe)
        check_sentences(data.name, data.texts, rows, file)
    opened = open_classifier(folder)
    model = opened.model
    names = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    kind = Classes(names) if len(names) > 1 else Number(-math.inf, math.inf)
    known = [row for row in rows if row]
    examples = [
        Example(row[0], row[1] if len(row) == 2 else None, None, number)
        for number, row in enumerate(known)
    ]
    positions = model.config.max_position_embeddings
    max_length = positions if recipe is None else min(int(number(recipe.max_length)), positions)
    accelerator = start_accelerator()
    encoded = encode(examples, opened.tokenizer, max_length, kind)
    logits = torch.from_numpy(logits_of(model.to(accelerator.device), encoded, accelerator))
    values = iter((logits.softmax(-1) if kind.names else logits).tolist())
    labels = kind.names or ("score",)
    return [dict(zip(labels, next(values), strict=True)) if row else None for row in rows]


def shown(prediction: Prediction | None) -> str:
    """A line: the likeliest label, then each label's probability, with tabs between; or the score; empty for None."""
    if prediction is None:
        return ""
    if list(prediction) == ["score"]:
        return f"{prediction['score']:.4f}"
    likeliest = max(prediction, key=lambda label: prediction[label])
    return "\t".join([likeliest, *(f"{label} {value:.1%}" for label, value in prediction.items())])
