"""The recipes that come with sqzb: found by name, listed, copied."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from sqzb.errors import RecipeError, UserError
from sqzb.files import whole_file
from sqzb.recipe.commands import COMMANDS, command_of
from sqzb.recipe.strict_yaml import parse

SUFFIX = ".yaml"
_INSTALLED = Path(__file__).parents[1] / "recipes"
_CHECKOUT = Path(__file__).parents[2] / "recipes"


def folder() -> Path:
    """Return the folder of the recipes: the installed package's, or the checkout's."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def names() -> list[str]:
    """Return the names of the recipes, in alphabetical order."""
    return sorted(path.stem for path in folder().glob(f"*{SUFFIX}"))


def find(recipe: Path) -> Path:
    """Return the file of a recipe that is given by path or by name, each with or without `.yaml`.

    A file that exists wins over a recipe of the same name that comes with sqzb.

    Raises:
        RecipeError: there is no such recipe, or the path is a folder.
    """
    for path in (recipe, Path(f"{recipe}{SUFFIX}")):
        if _is_file(path):
            return path
    shipped = _shipped(str(recipe))
    if shipped is not None:
        return shipped
    if recipe.is_dir():
        # A run's own recipe is the likeliest.
        inside = sorted(
            recipe.glob(f"*{SUFFIX}"), key=lambda path: (path.name != "recipe.yaml", path)
        )
        example = f", such as {inside[0]}" if inside else ""
        raise RecipeError(
            f"The recipe {recipe} cannot be read, because it is a folder. Give a YAML "
            f"file{example}."
        )
    if "=" in str(recipe):
        raise RecipeError(
            f"There is no recipe {recipe}. Give the recipe before the keys to change: RECIPE "
            f"{recipe}"
        )
    raise RecipeError(
        f"There is no recipe {recipe}, neither a file nor one that comes with sqzb, "
        f"{_known(recipe.stem)}"
    )


def named(name: str) -> Path:
    """Return the file of a recipe that comes with sqzb.

    Raises:
        RecipeError: no recipe has this name.
    """
    shipped = _shipped(name)
    if shipped is None:
        raise RecipeError(f"There is no recipe {name} that comes with sqzb, {_known(name)}")
    return shipped


def listed() -> Iterator[str]:
    """Yield a line for each recipe: its command, its name and its first comment, in columns."""
    rows = []
    for name in names():
        text = named(name).read_text(encoding="utf-8")
        rows.append((command_of(parse(text)), name, text.partition("\n")[0].lstrip("# ")))
    width = max(len(name) for _, name, _ in rows)
    for command in COMMANDS:
        for name, description in [row[1:] for row in rows if row[0] == command]:
            yield f"{command:<14}  {name:<{width}}  {description}"


def with_values(command: str, **values: str) -> list[str]:
    """Return the names of a command's recipes that have these values."""
    recipes = []
    for name in names():
        text = named(name).read_text(encoding="utf-8")
        if not all(value in text for value in values.values()):
            continue  # parsing all of them takes a tenth of a second
        recipe = parse(text)
        if command_of(recipe) == command and values.items() <= recipe.items():
            recipes.append(name)
    return recipes


def copy(name: str, target: Path | None) -> Path:
    """Copy a recipe to a file, or into a folder under its own name, and return the file.

    target: by default, the working directory.

    Raises:
        RecipeError: there is no recipe of this name.
        UserError: the file exists.
        OSError: the file cannot be written.
    """
    source = named(name)
    file = Path(source.name) if target is None else target
    if file.is_dir():
        file = file / source.name
    if os.path.lexists(file):
        command = f"sqzb recipes copy {name} FILE"
        raise UserError(f"{file} exists and is not overwritten. Give another file: {command}")
    with whole_file(file) as aside:
        aside.write_bytes(source.read_bytes())
    return file


def _is_file(path: Path) -> bool:
    """Return whether the path is a file, a pipe or the like, or cannot be examined.

    Reading a path that cannot be examined then reports the reason.
    """
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return True


def _shipped(name: str) -> Path | None:
    name = name.removesuffix(SUFFIX)
    return folder() / f"{name}{SUFFIX}" if name in names() else None


def _known(name: str) -> str:
    """Return the end of a message on a missing recipe: all names, the nearest first."""
    nearest = sorted(names(), key=lambda known: -difflib.SequenceMatcher(None, name, known).ratio())
    return f"which has {', '.join(nearest)}. `sqzb recipes` lists them with their commands."
