"""The command `sqzb pretrain`."""

from typing import Annotated

import typer

from sqzb.cli.options import FOLDER, Output, Overrides, Recipe, Resume, text_of


def pretrain(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Resume with another number of steps.", rich_help_panel=FOLDER
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the run and show its plan only.")
    ] = False,
) -> None:
    """Train a model on a prepared corpus."""
    from sqzb.recipe import PretrainRecipe, load_recipe

    wanted = load_recipe(PretrainRecipe, recipe, overrides or (), output=text_of(output))
    from sqzb.pretraining import job

    job.pretrain(wanted, resume, extend, dry_run)
