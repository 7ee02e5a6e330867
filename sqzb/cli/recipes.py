"""The command `sqzb recipes`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sqzb import console
from sqzb.cli.completion import complete_recipe
from sqzb.cli.options import Command

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete_recipe,
        help="A name that `sqzb recipes` lists.",
    ),
]

recipes = typer.Typer(
    help="List, show and copy the recipes of sqzb; list recipe keys.",
    epilog="Example: sqzb recipes",
)


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with sqzb: command, name, purpose."""
    if context.invoked_subcommand is None:
        _print_list()


@recipes.command(cls=Command, name="list", epilog="Example: sqzb recipes list")
def list_by_name() -> None:
    """List the recipes, as `sqzb recipes` alone does."""
    _print_list()


def _print_list() -> None:
    from sqzb.recipe import shipped

    console.lines([line] for line in shipped.listed())


@recipes.command(cls=Command, name="show", epilog="Example: sqzb recipes show phase1_128")
def show_recipe(name: Name) -> None:
    """Print a recipe."""
    from sqzb.recipe import shipped

    text = shipped.named(name).read_text(encoding="utf-8")
    console.lines([line] for line in text.splitlines())


@recipes.command(cls=Command, name="copy", epilog="Example: sqzb recipes copy phase1_128 mine.yaml")
def copy_recipe(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="New file, or a folder (default: NAME.yaml)."),
    ] = None,
) -> None:
    """Copy a recipe to a new file, for changes of your own."""
    from sqzb.recipe import shipped

    console.out.print(f"Written: {shipped.copy(name, file)}")


@recipes.command(cls=Command, name="keys", epilog="Example: sqzb recipes keys pretrain")
def list_keys(
    command: Annotated[
        Literal["pretrain", "finetune", "prepare-corpus"],
        typer.Argument(metavar="COMMAND", help="pretrain, finetune or prepare-corpus."),
    ],
) -> None:
    """List a command's recipe keys with type, limits, default and description."""
    from sqzb.recipe.reference import reference

    console.lines([line] for line in reference(command))
