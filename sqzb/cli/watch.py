"""The command `sqzb watch`."""

from typing import Annotated

import typer


def watch(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Run folders or sweeps; those that do not exist are waited for."
        ),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Show the runs as they are, and end.")
    ] = False,
) -> None:
    """Follow runs from another terminal: loss, steps, time left, evaluations.

    It ends when all runs are finished, or with Ctrl-C, and never disturbs a run.
    """
    from sqzb.report.watch import watch as follow

    follow(runs, once)
