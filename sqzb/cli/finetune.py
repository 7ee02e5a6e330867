"""The command `sqzb finetune`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from sqzb.cli.completion import complete_recipe, complete_run, complete_tasks
from sqzb.cli.options import (
    DATA,
    FOLDER,
    MODEL,
    OWN,
    RECIPE_HELP,
    SEVERAL,
    GlueDir,
    Label,
    Output,
    Overrides,
    Resume,
    Text,
    text_of,
)


def finetune(
    overrides: Overrides = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_tasks,
            help="GLUE task, such as mrpc; several: mrpc,rte; all nine: all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Your own data: CSV, TSV, JSONL, parquet or CoNLL; a folder; hub:owner/name.",
            rich_help_panel=OWN,
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="To measure on (default: 10% of --train).",
            rich_help_panel=OWN,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="To measure on at the end, or to predict later.",
            rich_help_panel=OWN,
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    kind: Annotated[
        Literal["classes", "number", "labels", "tokens"] | None,
        typer.Option(
            metavar="KIND",
            help="classes, number, labels or tokens (default: recognised).",
            rich_help_panel=OWN,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split of a Hub data set to train on (default: train).",
            rich_help_panel=OWN,
        ),
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="Short for --kind labels: several each.", rich_help_panel=OWN
        ),
    ] = False,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Short for --kind tokens --text COLUMN: a tag for each word.",
            rich_help_panel=OWN,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE",
            autocompletion=complete_recipe,
            help=f"{RECIPE_HELP} Default: the model card's settings, or own_data.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="One run for each seed: 1,2,3.", rich_help_panel=SEVERAL),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of runs in parallel (default 1).",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_run,
            help="Run, saved model or Hub id to start from.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_run,
            help="Model finetuned on the task, to distil from; repeat it for a mean of several.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    glue_dir: GlueDir = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Resume with another number of epochs.", rich_help_panel=FOLDER
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the data and the run, and show its plan only."),
    ] = False,
    of_sweep: Annotated[
        bool, typer.Option("--of-sweep", help="The recipe is a sweep's.", hidden=True)
    ] = False,
) -> None:
    """Train a pretrained model on your own data, on a GLUE task, or on several tasks and seeds.

    Several runs are a sweep: runs in OUTPUT/TASK/, tables in OUTPUT/results.json.
    The runs of a recipe with stages are in OUTPUT/STAGE/TASK/.
    The same command resumes an interrupted sweep.
    """
    from sqzb.recipe import SweepRecipe, load_recipe

    changes = [*(overrides or ()), *([] if seeds is None else [_seeds(seeds)])]
    changes += [f"distillation.teacher={_listed(teacher)}"] if teacher else []
    if multi_label and kind not in (None, "labels"):
        raise typer.BadParameter("--multi-label is --kind labels: leave out one of them")
    if tokens is not None and (text is not None or kind not in (None, "tokens") or multi_label):
        raise typer.BadParameter(
            "--tokens COLUMN is --kind tokens --text COLUMN: leave out the others"
        )
    own_data = {
        "train": train,
        "validation": validation,
        "test": test,
        "text": tokens if tokens is not None else text,
        "label": label,
        "split": split,
        "kind": "tokens" if tokens is not None else "labels" if multi_label else kind,
    }
    for key, value in own_data.items():
        if value:
            changes.append(f"data.{key}={_listed(value)}")
    if train and recipe is None:
        recipe = Path("own_data")
    wanted = load_recipe(
        SweepRecipe,
        recipe,
        changes,
        stored=of_sweep,
        task=task,
        model=model,
        glue_dir=text_of(glue_dir),
        output=text_of(output),
    )
    from sqzb.finetuning.sweep.plan import check_tasks, is_sweep

    check_tasks(wanted)  # before anything heavy is imported
    if is_sweep(wanted):
        if resume not in ("never", "auto") or extend:
            raise typer.BadParameter(
                "--extend and --resume PATH are for a single run; the same command resumes a sweep"
            )
        from sqzb.finetuning.sweep.run import plan_sweep, sweep

        if dry_run:
            plan_sweep(wanted)
        else:
            sweep(wanted, jobs or 1)
        return
    if jobs is not None:
        raise typer.BadParameter(
            "--jobs is for several runs: give several tasks, --seeds 1,2,3 or a grid "
            "such as sweep.lr=[1e-5,3e-5]"
        )
    from sqzb.finetuning import job
    from sqzb.finetuning.data import open_data

    (single,) = wanted.recipes(wanted.task)
    job.finetune(single, open_data(single), resume, extend, dry_run)


def _seeds(text: str) -> str:
    """Return --seeds as an override.

    Raises:
        typer.BadParameter: the text is not whole numbers with commas between.
    """
    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise typer.BadParameter(
            f"--seeds takes whole numbers separated by commas, such as 1,2,3; not {text!r}"
        )
    return f"sweep.seed=[{text}]"


def _listed(value: object) -> str:
    """Return a value as YAML, which has no pairs of surrogates as JSON's escapes have."""
    return json.dumps(value, ensure_ascii=False)
