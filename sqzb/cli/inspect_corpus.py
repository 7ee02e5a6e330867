"""The command `sqzb inspect-corpus`."""

from pathlib import Path
from typing import Annotated

import typer


def inspect_corpus(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="Folder written by prepare-corpus.")
    ],
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Number of examples to show.")
    ] = 5,
    length: Annotated[
        int | None,
        typer.Option(min=8, metavar="N", help="Sequence length (default: the corpus's first)."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Seed that selects and masks the examples."),
    ] = 0,
) -> None:
    """Show training examples of a corpus as readable text."""
    from sqzb.pretraining.inspection import inspect

    inspect(corpus, n, length, seed)
