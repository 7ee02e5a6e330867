"""The command `sqzb prepare-corpus`."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.completion import complete_recipe
from sqzb.cli.options import FOLDER, RECIPE_HELP, Executor, Output, Overrides, text_of


def prepare_corpus(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=complete_recipe,
            help=RECIPE_HELP,
        ),
    ] = None,
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
    from sqzb import console
    from sqzb.corpus.build import build
    from sqzb.corpus.manifest import report

    started = time.monotonic()
    corpus = build(wanted, workers, executor)
    report(corpus)
    took = console.duration(time.monotonic() - started)
    console.out.print(f"The corpus is in {corpus.folder}. This command took {took}.")
    console.next_commands(_next_commands(str(corpus.folder), corpus.manifest["sequence_lengths"]))


def _next_commands(folder: str, lengths: list[int]) -> list[str]:
    """Return the commands for a new corpus, with the first recipe that is made for it."""
    from sqzb.recipe.shipped import with_values

    training = with_values("pretrain", corpus=folder)[:1]
    if not training:
        length = 128 if 128 in lengths else lengths[0]
        training = ["phase1_128", f"corpus={folder}"]
        if length != 128:
            training += [f"sequence_length={length}", f"max_predictions={round(0.15 * length) + 1}"]
    commands = (["inspect-corpus", folder], ["plan", *training], ["pretrain", *training])
    return [shlex.join(["sqzb", *command]) for command in commands]
