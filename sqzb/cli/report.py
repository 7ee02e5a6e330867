"""The commands `sqzb report` and `sqzb compare`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.completion import complete_run

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_run,
        help="Run folders, sweeps, or folders of runs.",
    ),
]

Price = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="AMOUNT", help="Price of an hour of the hardware (default: list price)."
    ),
]


def report(
    runs: Runs,
    output: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path(
        "report.html"
    ),
    price: Price = None,
) -> None:
    """Write a page about runs: differences, results, curves, recipes, hardware.

    The page needs no network and no other file. The data of its pictures is beside it as CSV.
    The pictures need matplotlib, which the extra `report` installs.
    """
    from sqzb.report.page import write_report

    write_report(runs, output, price)


def compare(runs: Runs, price: Price = None) -> None:
    """Print the differences of runs' recipes, and their results side by side."""
    from sqzb.report.compare import print_comparison

    print_comparison(runs, price)
