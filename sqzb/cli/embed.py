"""The command `sqzb embed`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.completion import complete_run
from sqzb.cli.options import Overwrite, columns_of


def embed(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete_run,
            help="Run, saved model or Hub id, finetuned or not; or an export.",
        ),
    ],
    file: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="CSV, TSV, JSONL, parquet or text file; - is standard input."
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help=".npy file to write: float32 (rows, width).")
    ],
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the texts (default: as in training)."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a vector for each text: the mean of its tokens' last hidden states.

    Such vectors compare texts well only if the model was trained for it.
    """
    from sqzb.embed import embed_file

    columns = columns_of(text)
    embed_file(path, file, columns, output, overwrite)
