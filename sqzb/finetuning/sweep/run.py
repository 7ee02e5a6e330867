"""A sweep from its recipe to its tables."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.errors import UserError
from sqzb.files import check_output_folder, locked, write_json
from sqzb.finetuning.data import open_data
from sqzb.finetuning.sweep.plan import Run, plan
from sqzb.finetuning.sweep.processes import run_all
from sqzb.finetuning.sweep.tables import report, summary
from sqzb.hub import hub_id, local_folder
from sqzb.recipe import FinetuneRecipe, SweepRecipe, flat, load_recipe
from sqzb.training.ending import print_ending
from sqzb.training.resume import AUTO
from sqzb.training.run_folder import CHECKPOINTS, RECIPE, final_figures, refuse_used

OUTPUT, RESULTS = "runs/glue", "results.json"


def plan_sweep(recipe: SweepRecipe) -> None:
    """Check a sweep, print its runs and the plan of the first one, and write nothing.

    Models on the Hub are downloaded for the first run only.

    Raises:
        UserError: the recipe, a model, data or a folder cannot be used.
    """
    output = Path(recipe.output or OUTPUT)
    check_output_folder(output)
    runs = plan(recipe, output)
    _check_folders(output, runs)
    _check_models(runs, download=False)
    _check_data(runs)
    unfinished = _unfinished(runs)
    rows = [
        (str(run.folder), _listed(run.needs), "to do" if run in unfinished else "finished")
        for run in runs
    ]
    console.table(f"{console.counted(len(runs), 'run')} in {output}", ("run", "after", ""), rows)
    if unfinished:
        from sqzb.finetuning.job import finetune  # with torch, which a sweep does not need

        first = unfinished[0].recipe
        console.out.print(f"The plan of {unfinished[0].folder}:")
        finetune(first, open_data(first), AUTO, dry_run=True)


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)


def sweep(recipe: SweepRecipe, jobs: int = 1) -> dict[str, Any]:
    """Run all that is not finished, then print the tables, write them and return them.

    The tables are written to OUTPUT/results.json. At most `jobs` runs are in progress at once, each
    with one of the visible GPUs or a share of the cores.

    Raises:
        UserError: before anything runs, the recipe, a model, data or a folder cannot be used; after
            the tables, runs have failed.
        Stopped: a signal came. The runs in progress have saved themselves.
    """
    if "WORLD_SIZE" in os.environ:
        raise UserError(
            "A sweep starts processes of its own. Start it without accelerate or torchrun, with "
            "--jobs."
        )
    output = Path(recipe.output or OUTPUT)
    check_output_folder(output)
    runs = plan(recipe, output)
    _check_folders(output, runs)
    _check_models(runs)
    _check_data(runs)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output) as ours:
        if not ours:
            raise UserError(
                f"Another sweep is running in {output}. Wait for it, or give another --output."
            )
        for run in runs:
            run.link()
        failed, skipped = run_all(runs, jobs)
        results = summary(runs) | {"failed": [run.name for run in (*failed, *skipped)]}
        write_json(output / RESULTS, results)
    report(output, results)
    if not failed:
        folders = [run.folder for run in runs if run.same is None]
        print_ending(output, folders, ["sqzb", "report", output])
    if failed:
        listed = "".join(f"\n  {run.name}: {reason}" for run, reason in (failed | skipped).items())
        others = f", and {len(skipped)} that need them were not started" if skipped else ""
        raise UserError(
            f"{len(failed)} of {console.counted(len(runs), 'run')} failed{others}:{listed}\nThe "
            "same command tries them again."
        )
    return results


def _check_folders(output: Path, runs: Sequence[Run]) -> None:
    """Raise UserError, naming all of them, for folders that hold anything but the sweep's runs."""
    if (output / RECIPE).exists():
        raise UserError(f"{output} is the folder of a single run. Give another --output.")
    problems = []
    for run in runs:
        if not (run.folder / RECIPE).exists():
            refuse_used(run.folder)
            continue
        before = flat(load_recipe(FinetuneRecipe, run.folder / RECIPE, stored=True).model_dump())
        problems += [
            f"{run.folder}: {key} was {before[key]}, is {value}"
            for key, value in flat(run.recipe.model_dump()).items()
            # A run's own recipe has numbers in place of `auto`.
            if value not in (before[key], "auto")
            and not {key, key.split(".")[0]} & FinetuneRecipe.may_change
        ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(
            f"The sweep in {output} has runs of another recipe:{listed}\nRestore these keys, or "
            "give another --output."
        )


def _check_models(runs: Sequence[Run], download: bool = True) -> None:
    """Raise UserError for a missing model that an unfinished run starts from or learns from.

    A model on the Hub is downloaded here, before several runs would download it at once.

    download: whether it is; otherwise models on the Hub are not looked for.
    """
    unfinished = _unfinished(runs)
    made_here = {folder for run in unfinished for folder in run.needs}
    for run in unfinished:
        needed = [run.recipe.model, *run.recipe.distillation.teacher]
        if any((run.folder / CHECKPOINTS).glob("step-*")):
            needed.remove(run.recipe.model)  # a run resumes without it
        for path in needed:
            is_on_hub = hub_id(path) is not None and not Path(path).exists()
            if Path(path) not in made_here and (download or not is_on_hub):
                local_folder(path)


def _check_data(runs: Sequence[Run]) -> None:
    """Raise UserError, with all problems, if data that unfinished runs need is missing or wrong."""
    problems: list[str] = []
    recipes = {run.recipe.data_name: run.recipe for run in _unfinished(runs)}
    for data in map(open_data, recipes.values()):
        if not data.on_disk:
            continue
        for split in data.labelled_splits:
            try:
                data.read(split)
            except UserError as error:
                problems.append(f"\n  {error}")
    if problems:
        raise UserError(
            "The sweep cannot start, because of errors in the "
            f"data:{''.join(dict.fromkeys(problems))}"
        )


def _unfinished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if final_figures(run.folder) is None]
