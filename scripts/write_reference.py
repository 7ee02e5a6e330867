"""Write docs/reference.md: every command from typer, every recipe key from the schema.

    python scripts/write_reference.py

A test fails while the page differs from the code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sqzb.cli import app
from sqzb.recipe.commands import COMMANDS
from sqzb.recipe.reference import reference

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Commands and recipe keys

`scripts/write_reference.py` writes this page from the code. The installed version prints its own
reference: `sqzb COMMAND --help` and `sqzb recipes keys COMMAND`."""


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    yield "\n## Commands"
    yield from command_lines("sqzb", typer.main.get_command(app))
    for command in COMMANDS:
        yield f"\n## Recipe keys of sqzb {command}\n"
        _, _, _, *entries = reference(command)  # without its two lines of heading and a blank one
        yield "\n".join(["```", *entries, "```"])


def command_lines(name: str, command: Any) -> Iterator[str]:
    """Yield a command's heading, help, example and parameters, then those of its subcommands."""
    parameters = [
        parameter
        for parameter in command.params
        if parameter.name != "help" and not getattr(parameter, "hidden", False)
    ]
    yield f"\n### {name}\n"
    yield paragraphs(command.help)
    if "Example: " in (command.epilog or ""):
        yield f"\nExample: `{command.epilog.partition('Example: ')[2]}`"
    if parameters:
        yield "\n| Argument or option | Meaning |\n|---|---|"
    for parameter in parameters:
        yield f"| {written(parameter)} | {paragraphs(parameter.help).replace('|', chr(92) + '|')} |"
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from command_lines(f"{name} {inner}", subcommand)


def written(parameter: Any) -> str:
    """Return how a parameter is written on a command line."""
    if parameter.param_type_name == "option":
        return f"`{', '.join([*parameter.opts, *parameter.secondary_opts])}`"
    return f"`{parameter.metavar or parameter.name.upper()}`"


def paragraphs(text: str | None) -> str:
    """Return a help text with each paragraph on one line."""
    parts = (text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def page() -> str:
    """Return the text of the page."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
