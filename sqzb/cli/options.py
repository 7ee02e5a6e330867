"""Options, arguments and panels of --help that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

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

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)]

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


class RecipeCommand(TyperCommand):
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
