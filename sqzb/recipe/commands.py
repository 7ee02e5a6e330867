"""The commands that take a recipe."""

from collections.abc import Iterable

from sqzb.recipe.corpus import CorpusRecipe
from sqzb.recipe.pretraining import PretrainRecipe
from sqzb.recipe.sweeps import SweepRecipe
from sqzb.recipe.values import Section

COMMANDS: dict[str, type[Section]] = {
    "prepare-corpus": CorpusRecipe,
    "pretrain": PretrainRecipe,
    "finetune": SweepRecipe,
}
NOUNS = {
    "prepare-corpus": "a corpus recipe",
    "pretrain": "a pretraining recipe",
    "finetune": "a finetuning recipe",
}


def command_of(keys: Iterable[str]) -> str:
    """Return the command whose recipes know the most of these top-level keys."""
    given = set(keys)
    return max(COMMANDS, key=lambda command: len(COMMANDS[command].model_fields.keys() & given))


def command_line(command: str, recipe: str) -> str:
    """Return the command line that runs the command with this recipe."""
    return f"sqzb {command} {'--recipe ' if command == 'finetune' else ''}{recipe}"
