"""A finished run as a predictor."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.data.dataset import DataSet, Example
from sqzb.errors import UserError
from sqzb.finetuning.data import open_data, open_other, read_known
from sqzb.finetuning.encode import Encoded, encode
from sqzb.finetuning.evaluation import decide
from sqzb.finetuning.labels import check_kind, outputs_of
from sqzb.finetuning.predict import predict
from sqzb.finetuning.texts import count_unseen, unseen_warnings
from sqzb.model.open import Classifier, ModelFolder, Source, model_folder, open_classifier
from sqzb.recipe import FinetuneRecipe, PretrainRecipe, number
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import KNOWN, recipe_of


class Finetuned(NamedTuple):
    """A finetuned model for a data set.

    outputs: the model's output for each label of the data set.
    max_length: tokens to which examples are cut.
    """

    data: DataSet
    model: Classifier
    tokenizer: Tokenizer
    outputs: list[int]
    max_length: int
    accelerator: Accelerator

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return the examples as the model reads them, cut to its run's `max_length`."""
        return encode(examples, self.tokenizer, self.max_length, self.data.kind)

    def unseen_warnings(self, examples: Sequence[Example], encoded: Encoded) -> list[str]:
        """Return sentences about what the model does not see of examples."""
        unseen = count_unseen(examples, encoded, self.tokenizer, self.max_length)
        return unseen_warnings(unseen, self.max_length)

    def logits(self, encoded: Encoded) -> NDArray[np.float32]:
        """Return logits (examples, labels) or (words, tags), in the order of the data set's names.

        Numbers are in the unit of the labels.
        """
        return predict(self.model, encoded, self.accelerator)[:, self.outputs]

    @property
    def thresholds(self) -> list[float] | None:
        """Thresholds of several labels, in the data set's order; None if none were tuned."""
        tuned = self.model.config.thresholds
        return None if tuned is None else [tuned[output] for output in self.outputs]


def data_for(
    path: str,
    task_name: str | None,
    glue_dir: Path | None,
    files: Sequence[str] = (),
    text: Sequence[str] = (),
    label: str | None = None,
) -> DataSet:
    """Return the data set to measure a finetuned model on.

    path: a run, a saved folder or a Hub id.
    task_name, glue_dir: None takes those of the model's run.
    files: other files than the run's own data, to measure on.
    text, label: columns of `files`; by default those of the run.

    Raises:
        UserError: the model's task is unknown, or there is no such task.
    """
    recipe = recipe_of(path, FinetuneRecipe) or FinetuneRecipe()
    changes: dict[str, str] = {}
    if task_name is not None:
        changes["task"] = task_name
    if glue_dir is not None:
        changes["glue_dir"] = str(glue_dir)
    recipe = recipe.model_copy(update=changes)
    known = read_known(Path(path))
    if files:
        if known is None or task_name is not None:
            raise UserError(
                f"--data is for a run on data of your own, and {path} is none: {KNOWN} is not "
                "there. Give the folder of such a run."
            )
        return open_other(recipe, known, files, text, label)
    if known is not None and task_name is None:
        return open_data(recipe, known)
    if recipe.task is None:
        model_folder(
            path
        )  # raises where there is no such model, of which nothing else needs to be said
        pretraining = recipe_of(path, PretrainRecipe)
        if pretraining is not None:
            command = f"sqzb eval {path} --corpus {pretraining.corpus}"
            raise UserError(f"{path} is a pretrained model. Evaluate it on a corpus: {command}")
        raise UserError(
            f"The task of {path} is not known, because no run's recipe is with it. Give --task "
            "for a finetuned model, or --corpus for a pretrained one."
        )
    return open_data(recipe)


def open_finetuned(
    source: Source, data: DataSet, accelerator: Accelerator | None = None
) -> Finetuned:
    """Open the model of a run, a saved folder or a Hub id for a data set.

    accelerator: the accelerator of the surrounding run, if there is one.

    Raises:
        UserError: the model cannot be opened, or has other labels.
    """
    folder = model_folder(source)
    recipe = recipe_of(str(folder.path), FinetuneRecipe) or FinetuneRecipe()
    opened = open_classifier(folder)
    check_kind(data, opened.model.config, folder.classifies_tokens, folder.path)
    outputs = outputs_of(data, opened.model.config.id2label, folder.path, console.warn)
    max_length = min(int(number(recipe.max_length)), opened.model.config.max_position_embeddings)
    accelerator = accelerator or start_accelerator()
    model = opened.model.to(accelerator.device)
    return Finetuned(data, model, opened.tokenizer, outputs, max_length, accelerator)


def longest_input(folder: ModelFolder, positions: int) -> int:
    """Return the tokens of a model's longest input: those of its finetuning, if there was one.

    positions: tokens that the model can read
    """
    recipe = recipe_of(str(folder.path), FinetuneRecipe)
    return positions if recipe is None else min(int(number(recipe.max_length)), positions)


def text_columns(folder: ModelFolder) -> tuple[str, ...]:
    """Return the columns of texts in a run's own training data; none of other models.

    Raises:
        UserError: The run's data.json is damaged.
    """
    known = read_known(folder.path)
    return () if known is None else known.text


def text_count(folder: ModelFolder) -> int | None:
    """Return the texts of an example in a run's training data; None if they are not known.

    Raises:
        UserError: The run's recipe or data.json is damaged.
    """
    recipe = recipe_of(str(folder.path), FinetuneRecipe)
    if recipe is not None and recipe.task is not None:
        return open_data(recipe).texts
    return len(text_columns(folder)) or None


def by_index(finetuned: Finetuned, examples: Sequence[Example]) -> dict[int, float]:
    """Return the predictions of a test split by index, as a submission needs them.

    A prediction is the index of a label, or a number.
    """
    predictions = decide(finetuned.data.kind, finetuned.logits(finetuned.encode(examples)))
    return dict(zip((example.row for example in examples), predictions.tolist(), strict=True))
