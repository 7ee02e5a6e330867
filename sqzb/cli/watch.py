"""The command `sqzb watch`."""

from typing import Annotated

import typer

from sqzb.cli.completion import complete_run


def watch(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="Run folders or sweeps; those that do not exist are waited for.",
        ),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Show the runs as they are, and end.")
    ] = False,
) -> None:
    """Follow runs from another terminal, side by side.

    Each has its loss as a sparkline, step, time left, speed and last evaluation.

    It ends when all runs are finished, or with Ctrl-C, and never disturbs a run.
    """
    from sqzb.report.watch import watch as follow

    follow(runs, once)
