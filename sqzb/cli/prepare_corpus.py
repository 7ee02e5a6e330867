"""The command `sqzb prepare-corpus`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.options import FOLDER, RECIPE_HELP, Executor, Output, Overrides, text_of


def prepare_corpus(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)] = None,
    overrides: Overrides = None,
    output: Output = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Processes (default: one per core, fewer for little text)."
        ),
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="Run in local processes or on a Ray cluster.")
    ] = "processes",
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Only check the files of this corpus.", rich_help_panel=FOLDER
        ),
    ] = None,
) -> None:
    """Turn documents into a corpus for pretraining.

    An interrupted command resumes. A corpus that lost files is repaired.
    """
    if (recipe is None) == (verify is None):
        raise typer.BadParameter("give either a recipe or --verify DIR")
    from sqzb.recipe import CorpusRecipe, load_recipe

    if recipe is None:
        from sqzb.corpus.build import verify as check

        check(verify or Path())
        return
    wanted = load_recipe(CorpusRecipe, recipe, overrides or (), output=text_of(output))
    from sqzb.corpus.build import build
    from sqzb.corpus.manifest import report

    report(build(wanted, workers, executor))
