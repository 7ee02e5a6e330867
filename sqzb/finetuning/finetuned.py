"""What a finished run predicts, and GLUE's submission from the best run of each task."""

from collections.abc import Sequence
from glob import escape, glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.errors import UserError
from sqzb.finetuning.evaluation import Encoded, decide, encode, outputs_of, predict, predict_inside
from sqzb.glue import submission
from sqzb.glue.data import Example, differing_count, load_split
from sqzb.glue.tasks import TASKS, Task, task
from sqzb.hub import local_folder
from sqzb.model.classifiers import Classifier, open_classifier, open_tokenizer
from sqzb.recipe import FinetuneRecipe
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import RECIPE, final_figures, recipe_of


class Finetuned(NamedTuple):
    """A finetuned model, and where it has the labels of the task that it is to predict."""

    task: Task
    model: Classifier
    tokenizer: Tokenizer
    outputs: list[int]
    max_length: int
    accelerator: Accelerator

    def encode(self, examples: Sequence[Example]) -> Encoded:
        return encode(examples, self.tokenizer, self.max_length, self.task.regression)

    def logits(self, encoded: Encoded) -> NDArray[np.float32]:
        """(examples, labels), in the order of the task's labels."""
        return predict(self.model, encoded, self.accelerator)[:, self.outputs]

    def inside(
        self, encoded: Encoded, attention: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float16], list[NDArray[np.float16]]]:
        """The logits with what lies before them, as `predict_inside` has it."""
        logits, states, weights = predict_inside(self.model, encoded, self.accelerator, attention)
        return logits[:, self.outputs], states, weights


def open_finetuned(path: str, task_name: str | None, accelerator: Accelerator | None = None) -> Finetuned:
    """The model of a run, a saved folder or a Hub id, for a task, by default its own. UserError when it has other
    labels.

    accelerator: that of the run which the model is opened in, if there is one.
    """
    folder = local_folder(path)
    recipe = recipe_of(path, FinetuneRecipe) or FinetuneRecipe()
    name = task_name or recipe.task
    if name is None:
        raise UserError(
            f"{path} does not say what it is for: give --task of a finetuned model, --corpus of a pretrained."
        )
    chosen = task(name)
    model = open_classifier(folder)
    outputs = outputs_of(chosen, model.config.id2label, folder, console.warn)
    max_length = min(recipe.max_length, model.config.max_position_embeddings)
    accelerator = accelerator or start_accelerator()
    model = model.to(accelerator.device)
    return Finetuned(chosen, model, open_tokenizer(folder), outputs, max_length, accelerator)


def by_index(finetuned: Finetuned, examples: Sequence[Example]) -> dict[int, float]:
    """The predictions of a test split, as a submission has them: label indices or numbers by index."""
    predictions = decide(finetuned.task, finetuned.logits(finetuned.encode(examples)))
    return dict(zip((example.row for example in examples), predictions.tolist(), strict=True))


def submit(paths: Sequence[str], target: Path, glue_dir: Path | None) -> dict[str, object]:
    """Write GLUE's zip from finetuned runs, one of each task, and return which were taken.

    paths: runs, or folders that hold runs at any depth. Of several runs of a task the one with the best validation
    score is taken; MNLI's predicts AX too. UserError, before anything is predicted, when a task has no run or a test
    split is not GLUE's whole one.
    """
    best = _best_runs(paths)
    lacking = [name for name, row in TASKS.items() if not row.model_of and name not in best]
    if lacking:
        raise UserError(
            f"A submission needs a finished run of every task, and there is none of {', '.join(lacking)} in "
            f"{', '.join(paths)}. Finetune these first (sqzb finetune --task NAME)."
        )
    tests = {
        (name, split): load_split(row, split, glue_dir) for name, row in TASKS.items() for split in row.test_splits
    }
    differing = [differing_count(TASKS[name], split, examples) for (name, split), examples in tests.items()]
    if any(differing):
        raise UserError(f"GLUE takes whole test splits only: {' '.join(filter(None, differing))}")
    predictions: dict[tuple[str, str], dict[int, float]] = {}
    for name, row in TASKS.items():
        finetuned = open_finetuned(str(best[row.model_of or name][1]), name)
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
