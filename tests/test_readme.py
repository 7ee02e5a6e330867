"""Every command that the README shows is one that exists, with recipes that load."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from sqzb.cli import app
from sqzb.recipe import CorpusRecipe, PretrainRecipe, Section, SweepRecipe, load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KINDS: dict[str, type[Section]] = {
    "prepare-corpus": CorpusRecipe,
    "pretrain": PretrainRecipe,
    "finetune": SweepRecipe,
}


def commands() -> list[list[str]]:
    """The arguments of every sqzb command in a shell block of the README, the scripts and the recipes' heads."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    heads = [re.sub("^#", "", recipe.read_text(), flags=re.MULTILINE) for recipe in (ROOT / "recipes").glob("*.yaml")]
    lines = "\n".join(blocks + heads).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^\s*|-m )sqzb\s+(.*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_shown_command_exists(arguments: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    given = group.commands[name].make_context(name, rest).params
    recipe = given.get("recipe")
    if recipe is not None:
        in_checkout = ROOT / recipe
        path = in_checkout if in_checkout.exists() else recipe  # else the name of a recipe
        load_recipe(KINDS[name], path, given.get("overrides") or ())


def test_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^`?make ([\w-]+)", README, re.MULTILINE):
        assert re.search(f"^{target}:", makefile, re.MULTILINE)


def test_the_picture_of_the_house_names_every_module() -> None:
    for path in (ROOT / "sqzb").rglob("*.py"):
        if not path.name.startswith("__"):
            assert path.name in README, f"{path} is not in the README's picture"
