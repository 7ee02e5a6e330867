"""The printed reference: every key with its default, type, limits and description, from the
schema.
"""

from typing import Any

import pytest

from sqzb.recipe import SweepRecipe, flat, load_recipe
from sqzb.recipe.commands import COMMANDS
from sqzb.recipe.reference import WIDTH, keys, reference, section_in

NEEDED = {
    "prepare-corpus": ["sources.NAME.path=texts"],
    "pretrain": ["model.hidden_size=768"],
    "finetune": [],
}


def entries(command: str) -> dict[str, tuple[str, str, str]]:
    """The reference's (default, type, description) by key."""
    found = {}
    _, *blocks = "\n".join(reference(command)).split("\n\n")
    for block in blocks:
        head, description = block.replace("\n        ", " ").split("\n", maxsplit=1)
        name, type_text = head.split("  (", maxsplit=1)
        key, _, default = name.partition("=")
        found[key] = default, type_text.removesuffix(")"), " ".join(description.split())
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_is_described(command: str) -> None:
    found = entries(command)
    assert list(found) == [key for key, _ in keys(COMMANDS[command])]
    for _, type_text, description in found.values():
        assert type_text and "value" not in type_text.split()
        assert len(description) >= 10
    assert max(map(len, reference(command))) <= WIDTH == 80


def test_the_reference_reaches_every_key_of_a_recipe() -> None:
    for command, kind in COMMANDS.items():
        recipe = load_recipe(kind, None, NEEDED[command])
        written = flat(recipe.model_dump(exclude={"sweep", "tasks", "stages", "model"}))
        assert written.keys() <= {key for key, _ in keys(kind)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_default_can_be_given_as_it_is_printed(command: str) -> None:
    kind = COMMANDS[command]
    fields = dict(keys(kind))
    given = []
    for key, (default, _, _) in entries(command).items():
        if not section_in(fields[key].annotation) and not key.startswith("stages."):
            given.append(f"{key}={default}")
    recipe = load_recipe(kind, None, [*given, *NEEDED[command]])
    values: Any = flat(recipe.model_dump())
    for key, field in fields.items():
        if key in values and key not in ("sources.NAME.path",):
            assert values[key] == field.get_default(), key


def test_types_and_limits_are_in_words() -> None:
    found = {
        key: (default, type_text)
        for command in COMMANDS
        for key, (default, type_text, _) in entries(command).items()
    }
    assert found["heldout"] == ("0.005", "number, 0 or more, below 1")
    assert found["sequence_lengths"] == ("[128,512]", "list of whole numbers, not empty")
    assert found["micro_batch"] == ("32", "whole number, 1 or more, or auto")
    assert found["masking"] == ("token", "token, word or ngram")
    assert found["evaluate_sequences"] == ("4096", "whole number, 1 or more, or null")
    assert found["optimizer.betas"] == ("[0.9,0.999]", "list of 2 numbers")
    assert found["optimizer"] == ("", "section")
    assert found["sources"] == ("", "section by name")
    assert found["seed"] == ("0", "whole number, 0 or more, below 2**64")


def test_a_sweeps_parts_are_a_line_each_with_what_is_their_own() -> None:
    of_parts = [
        key for key, _ in keys(SweepRecipe) if key.split(".")[0] in ("sweep", "tasks", "stages")
    ]
    assert of_parts == ["sweep", "tasks", "stages", "stages.NAME.teacher", "stages.NAME.first"]
