"""The help of `sqzb` itself: its commands by panel.

typer's own pages of help load libraries for Markdown and code, which takes longer than all else.
"""

from typing import Any

from typer.core import TyperGroup

from sqzb import console


class Group(TyperGroup):
    """The commands, with a page of help that appears at once."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        console.out.print(f"\n {self.get_usage(ctx)}\n\n {self.help}\n")
        options = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        console.panel("Options", [record for record in options if record is not None])
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                summary = (command.help or "").partition("\n\n")[0]
                panels.setdefault(title, []).append((name, " ".join(summary.split())))
        for title, rows in panels.items():
            console.panel(title, rows)
        console.out.print(f"\n{self.epilog}\n", soft_wrap=False)
