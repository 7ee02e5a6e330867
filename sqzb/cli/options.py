"""Options, arguments and panels of --help that several commands share."""

import os
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from sqzb.cli.completion import complete_recipe

# Panels of --help, for commands with more options than 24 lines hold.
OWN, DATA, MODEL, SEVERAL, FOLDER = "Your own data", "GLUE", "Model", "Several runs", "Folder"
RESULT = "Result"

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Override recipe keys (list: sqzb recipes keys).",
    ),
]

RECIPE_HELP = "YAML file, or a name that `sqzb recipes` lists."

Recipe = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        autocompletion=complete_recipe,
        help=RECIPE_HELP,
    ),
]

Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder to write (default: the recipe's).", rich_help_panel=FOLDER
    ),
]

Resume = Annotated[
    str,
    typer.Option(
        metavar="auto|PATH",
        help="Resume from the newest intact checkpoint, or from PATH.",
        show_default=False,
        rich_help_panel=FOLDER,
    ),
]

Executor = Literal["processes", "ray"]

GlueDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with GLUE's files, MRPC/ and so on (default: the Hub).",
        rich_help_panel=DATA,
    ),
]

Text = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the text; a pair is A,B.",
        rich_help_panel=OWN,
    ),
]

Label = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column of the label (default: recognised).", rich_help_panel=OWN
    ),
]


Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a file that exists at the output.", rich_help_panel=RESULT
    ),
]

# Names in --help of values that are paths, or may be one.
PATHS = {"DIR", "MODEL", "RUN", "CORPUS", "RECIPE", "auto|PATH", "FILE", "ZIP", "FILE|DIR"}
# Of these, the values that are files; with `FILE|DIR`, a name without an ending is a folder.
FILES = {"FILE", "ZIP"}


class Command(TyperCommand):
    """A command: `~` in its paths is expanded, and its errors obey no control characters."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as typer does, then expand the paths.

        Raises:
            typer.BadParameter: a file is given as a folder, `FILE/`.
        """
        values = [part for argument in args for part in (argument, argument.partition("=")[2])]
        folders = {str(Path(value)) for value in values if value.endswith("/")}
        try:
            left = super().parse_args(ctx, args)
            for parameter in self.params:
                if parameter.metavar in PATHS:
                    name = str(parameter.name)
                    self._check_file(ctx, parameter, folders)
                    ctx.params[name] = _at_home(ctx.params[name])
            return left
        except Exception as error:
            if isinstance(getattr(error, "message", None), str):  # typer's own errors
                from sqzb.console import visible

                error.message = visible(error.message)  # type: ignore[attr-defined]
            raise

    def _check_file(self, ctx: Any, parameter: Any, folders: Set[str]) -> None:
        """Raise typer.BadParameter if a file is among the values with a / at their end."""
        value = ctx.params[str(parameter.name)]
        for path in value if isinstance(value, list | tuple) else [value]:
            if str(path) not in folders or os.path.isdir(os.path.expanduser(path)):
                continue
            is_file = parameter.metavar in FILES
            if parameter.metavar == "FILE|DIR":
                is_file = bool(Path(path).suffix)
            if is_file:
                problem = f"there is no folder {path}/; for a file, leave out the / at the end"
                raise typer.BadParameter(problem, ctx, parameter)


def _at_home(value: Any) -> Any:
    """Return paths with the home folder in place of `~`, as the shell does for a bare word."""
    if isinstance(value, list | tuple):
        return [_at_home(part) for part in value]
    if isinstance(value, str | Path):
        return type(value)(os.path.expanduser(value))
    return value


class RecipeCommand(Command):
    """A command with a recipe, which recognises recipe keys that are given as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as any command does.

        Raises:
            typer.BadParameter: `--steps 10` is given for `steps=10`.
        """
        options = {"--help"}
        for parameter in self.params:
            options.update(parameter.opts, parameter.secondary_opts)
        for index, argument in enumerate(args):
            option, _, value = argument.partition("=")
            if argument == "--":
                break
            if argument == "--resume" and not args[index + 1 : index + 2]:
                raise typer.BadParameter("give --resume auto, or --resume CHECKPOINT", ctx)
            if not option.startswith("--") or option in options:
                continue
            from sqzb.recipe.commands import COMMANDS
            from sqzb.recipe.explanations import same_key

            name = option[2:].replace("-", "_")
            for key in same_key(COMMANDS[str(self.name)], name)[:1]:
                following = "".join(args[index + 1 : index + 2])
                value = value or ("" if following.startswith("-") else following)
                # The value of a key of another name may be in another unit: steps and epochs.
                if not value or not f".{key}".endswith(f".{name}"):
                    value = "VALUE"
                problem = f"no such option: {option}. Recipe keys have no dashes: {key}={value}"
                raise typer.BadParameter(problem, ctx)
        return super().parse_args(ctx, args)


def text_of(path: Path | None) -> str | None:
    """Return a path as text, or None without one."""
    return None if path is None else str(path)


def columns_of(text: str | None) -> list[str]:
    """Return the column names of `--text A,B`."""
    return [] if text is None else [name.strip() for name in text.split(",")]
