"""GLUE's submission from the best finetuned run of each task."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.data.dataset import DataSet
from sqzb.errors import UserError
from sqzb.finetuning.finetuned import by_index, open_finetuned
from sqzb.folders import walk
from sqzb.glue import submission
from sqzb.glue.data import differing_count
from sqzb.glue.tasks import NINE, TASKS
from sqzb.recipe import FinetuneRecipe
from sqzb.training.run_folder import RECIPE, final_figures, recipe_of


def submit(
    paths: Sequence[str],
    target: Path,
    open_task: Callable[[str], DataSet],
    keep: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> dict[str, Any]:
    """Write GLUE's zip from finetuned runs, one of each task, and return the runs.

    paths: runs, or folders that hold runs at any depth. Of several runs of a task, the one with the
    best validation score is used. MNLI's run also predicts AX.
    open_task: makes the data set of a task.
    keep: is called with the runs before they are printed.

    Raises:
        UserError: a task has no run, or a test split is not GLUE's whole one. Nothing has been
            predicted then.
    """
    best = {name: run for name, run in _best_runs(paths).items() if name in NINE}
    lacking = [name for name in NINE if name not in best]
    if lacking:
        raise UserError(
            f"A submission needs one finished run for each task. Missing: {', '.join(lacking)}, in "
            f"{', '.join(paths)}. Finetune these first (sqzb finetune --task NAME)."
        )
    rows = {name: row for name, row in TASKS.items() if row.submission}
    data = {name: open_task(name) for name in rows}
    tests = {
        (name, split): data[name].read(split).examples
        for name in rows
        for split in data[name].test_splits
    }
    differing = [
        differing_count(TASKS[name], split, examples) for (name, split), examples in tests.items()
    ]
    if any(differing):
        raise UserError(
            f"GLUE accepts only complete test splits. {' '.join(filter(None, differing))}"
        )
    predictions: dict[tuple[str, str], dict[int, float]] = {}
    for name, row in rows.items():
        finetuned = open_finetuned(str(best[row.model_of or name][1]), data[name])
        predictions |= {
            (name, split): by_index(finetuned, tests[name, split]) for split in row.test_splits
        }
    submission.write(target, predictions)
    figures = {
        "submission": str(target),
        "runs": {
            name: {"path": str(run), "validation_score": score}
            for name, (score, run) in best.items()
        },
    }
    keep(figures)
    taken = [(name, str(run), f"{score:.1%}") for name, (score, run) in best.items()]
    console.table(f"{target}, by these runs", ("task", "run", "validation score"), taken)
    return figures


def _best_runs(paths: Sequence[str]) -> dict[str, tuple[float, Path]]:
    """Return by task the best validation score of the finished runs, and the first run with it."""
    scored: dict[str, list[tuple[float, Path]]] = {name: [] for name in TASKS}
    for path in paths:
        # With links, because a sweep has links to runs that are in two of its stages.
        files = walk(Path(path), hidden=()).files if Path(path).is_dir() else []
        runs = [file.parent for file in files if file.name == RECIPE]
        finished = [(run, figures) for run in runs if (figures := final_figures(run)) is not None]
        if not finished:
            raise UserError(
                f"No finished run found in {path}. Give run folders, or a folder of runs."
            )
        for run, figures in finished:
            recipe = recipe_of(str(run), FinetuneRecipe)
            if recipe is not None and recipe.task in scored:
                scored[recipe.task].append((figures["score"], run))
    return {name: max(runs, key=lambda run: run[0]) for name, runs in scored.items() if runs}
