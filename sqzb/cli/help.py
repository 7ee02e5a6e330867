"""The help of `sqzb` itself: its commands by panel.

typer's own pages of help load libraries for Markdown, code and tables, which takes longer than all
else.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from sqzb import console

LEAST_WIDTH = 20  # columns of a summary, however narrow the terminal is


class Group(TyperGroup):
    """The commands, with a page of help that appears at once."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        console.out.print(f"\n {self.get_usage(ctx)}\n\n {self.help}\n")
        options = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        _print_panel("Options", [record for record in options if record is not None])
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                summary = (command.help or "").partition("\n\n")[0]
                panels.setdefault(title, []).append((name, " ".join(summary.split())))
        for title, rows in panels.items():
            _print_panel(title, rows)
        console.out.print(f"\n{self.epilog}\n", soft_wrap=False)


def _print_panel(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names with their summaries in a frame, as typer does for a command's options."""
    upper, lower, across, down = "\u256d\u256e", "\u2570\u256f", "\u2500", "\u2502"
    if console.out.options.ascii_only:
        upper, lower, across, down = "++", "++", "-", "|"
    column = max(len(name) for name, _ in rows)
    width = max(LEAST_WIDTH, console.out.width - column - 6)

    begin = f"{upper[0]}{across} {title} "
    dim, inside = "dim", column + width + 4
    console.out.print(console.styled((begin + across * (inside + 1 - len(begin)) + upper[1], dim)))
    for name, summary in rows:
        for index, line in enumerate(textwrap.wrap(summary, width)):
            left = "" if index else name
            parts = (f"{down} ", dim), (f"{left:{column}}  ", "bold"), f"{line:{width}}"
            console.out.print(console.styled(*parts, (f" {down}", dim)))
    console.out.print(console.styled((lower[0] + across * inside + lower[1], dim)))
