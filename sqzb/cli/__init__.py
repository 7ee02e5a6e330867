"""The command line, one file a command: parse, call, print."""

from sqzb.cli.commands import app, main

__all__ = ["app", "main"]
