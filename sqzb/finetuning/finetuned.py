"""What a finished run predicts, and GLUE's submission from the best run of each task."""

from collections.abc import Callable, Sequence
from glob import escape, glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.data.dataset import DataSet, Example
from sqzb.errors import UserError
from sqzb.finetuning.data import open_data
from sqzb.finetuning.evaluation import Encoded, decide, encode, outputs_of, predict
from sqzb.glue import submission
from sqzb.glue.data import differing_count
from sqzb.glue.tasks import TASKS
from sqzb.model.open import Classifier, Source, model_folder, open_classifier
from sqzb.recipe import FinetuneRecipe
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import RECIPE, final_figures, recipe_of


class Finetuned(NamedTuple):
    """A finetuned model, and where it has the labels of the data set that it is to predict."""

    data: DataSet
    model: Classifier
    tokenizer: Tokenizer
    outputs: list[int]
    max_length: int
    accelerator: Accelerator

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return the examples as the model reads them, cut to its run's `max_length`."""
        return encode(examples, self.tokenizer, self.max_length, self.data.kind)

    def logits(self, encoded: Encoded) -> NDArray[np.float32]:
        """Return logits (examples, labels), in the order of the data set's labels."""
        return predict(self.model, encoded, self.accelerator)[:, self.outputs]


def data_for(path: str, task_name: str | None, glue_dir: Path | None) -> DataSet:
    """Return the data set to measure a finetuned model on.

    path: a run, a saved folder or a Hub id; task_name, glue_dir: None for those of the model's run.

    Raises:
        UserError: Nothing says what the model is for, or there is no such task.
    """
    recipe = recipe_of(path, FinetuneRecipe) or FinetuneRecipe()
    changes: dict[str, str] = {}
    if task_name is not None:
        changes["task"] = task_name
    if glue_dir is not None:
        changes["glue_dir"] = str(glue_dir)
    recipe = recipe.model_copy(update=changes)
    if recipe.task is None:
        raise UserError(
            f"{path} does not say what it is for: give --task of a finetuned model, --corpus of a pretrained."
        )
    return open_data(recipe)


def open_finetuned(source: Source, data: DataSet, accelerator: Accelerator | None = None) -> Finetuned:
    """Open the model of a run, a saved folder or a Hub id for a data set.

    accelerator: that of the run which the model is opened in, if there is one.

    Raises:
        UserError: The model cannot be opened, or has other labels.
    """
    folder = model_folder(source)
    recipe = recipe_of(str(folder.path), FinetuneRecipe) or FinetuneRecipe()
    opened = open_classifier(folder)
    outputs = outputs_of(data, opened.model.config.id2label, folder.path, console.warn)
    max_length = min(recipe.max_length, opened.model.config.max_position_embeddings)
    accelerator = accelerator or start_accelerator()
    model = opened.model.to(accelerator.device)
    return Finetuned(data, model, opened.tokenizer, outputs, max_length, accelerator)


def by_index(finetuned: Finetuned, examples: Sequence[Example]) -> dict[int, float]:
    """The predictions of a test split, as a submission has them: label indices or numbers by index."""
    predictions = decide(finetuned.data.kind, finetuned.logits(finetuned.encode(examples)))
    return dict(zip((example.row for example in examples), predictions.tolist(), strict=True))


def submit(paths: Sequence[str], target: Path, open_task: Callable[[str], DataSet]) -> dict[str, object]:
    """Write GLUE's zip from finetuned runs, one of each task, and return which were taken.

    paths: runs, or folders that hold runs at any depth; open_task: makes the data set of a task. Of several runs of a
    task the one with the best validation score is taken; MNLI's predicts AX too.

    Raises:
        UserError: A task has no run, or a test split is not GLUE's whole one. Nothing has been predicted then.
    """
    best = _best_runs(paths)
    lacking = [name for name, row in TASKS.items() if not row.model_of and name not in best]
    if lacking:
        raise UserError(
            f"A submission needs a finished run of every task, and there is none of {', '.join(lacking)} in "
            f"{', '.join(paths)}. Finetune these first (sqzb finetune --task NAME)."
        )
    data = {name: open_task(name) for name in TASKS}
    tests = {(name, split): data[name].read(split).examples for name in TASKS for split in data[name].test_splits}
    differing = [differing_count(TASKS[name], split, examples) for (name, split), examples in tests.items()]
    if any(differing):
        raise UserError(f"GLUE takes whole test splits only: {' '.join(filter(None, differing))}")
    predictions: dict[tuple[str, str], dict[int, float]] = {}
    for name, row in TASKS.items():
        finetuned = open_finetuned(str(best[row.model_of or name][1]), data[name])
        predictions |= {(name, split): by_index(finetuned, tests[name, split]) for split in row.test_splits}
    submission.write(target, predictions)
    rows = [(name, str(run), f"{score:.1%}") for name, (score, run) in best.items()]
    console.table(f"{target}, by these runs", ("task", "run", "validation score"), rows)
    return {
        "submission": str(target),
        "runs": {name: {"path": str(run), "validation_score": score} for name, (score, run) in best.items()},
    }


def _best_runs(paths: Sequence[str]) -> dict[str, tuple[float, Path]]:
    """By task, in the order of TASKS, the best validation score of the finished runs, and the first run that has it."""
    found: dict[str, list[tuple[float, Path]]] = {name: [] for name in TASKS}
    for path in paths:
        # Not rglob, which passes over the links of a sweep to runs that are in two of its stages.
        runs = sorted(Path(recipe).parent for recipe in glob(f"{escape(path)}/**/{RECIPE}", recursive=True))
        finished = [(run, figures) for run in runs if (figures := final_figures(run)) is not None]
        if not finished:
            raise UserError(f"{path} neither is nor holds a finished run. Give run folders, or a folder of them.")
        for run, figures in finished:
            recipe = recipe_of(str(run), FinetuneRecipe)
            if recipe is not None and recipe.task in found:
                found[recipe.task].append((figures["score"], run))
    return {name: max(runs, key=lambda run: run[0]) for name, runs in found.items() if runs}
