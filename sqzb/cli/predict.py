"""The command `sqzb predict`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.completion import complete_run
from sqzb.cli.options import OWN, RESULT, Executor, Overwrite, columns_of


def predict(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete_run,
            help="Finetuned run, saved model, Hub id or export.",
        ),
    ],
    sentences: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE [SECOND]", help="Text to predict: one or a pair."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="CSV, TSV, JSONL, parquet or text file, or a folder of them; - is standard "
            "input. Repeat it for several files.",
            rich_help_panel=OWN,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the texts, or A,B for pairs (default: as in training).",
            rich_help_panel=OWN,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="CSV, TSV, JSONL or parquet file to write; a folder for several files.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON object per line.", rich_help_panel=RESULT),
    ] = False,
    overwrite: Overwrite = False,
    executor: Annotated[
        Executor,
        typer.Option(help="Predict several files here or on a Ray cluster."),
    ] = "processes",
) -> None:
    """Predict labels with their probabilities, or scores.

    --output keeps the columns and the order of the rows, and adds the predictions.
    Without --output, the prediction of each row is printed as a line.
    """
    if (not sentences) == (not file):
        raise typer.BadParameter("give either a sentence or --file FILE")
    if len(sentences or ()) > 2:
        raise typer.BadParameter("give one sentence or two; put each into quotes")
    if not file and (text is not None or output is not None or executor != "processes"):
        raise typer.BadParameter("--text, --output and --executor are for --file FILE")
    if output is not None and json:
        raise typer.BadParameter("--json prints; for a file give --output FILE.jsonl alone")
    is_several = bool(file) and (len(file or ()) > 1 or Path((file or [""])[0]).is_dir())
    if output is None and file and (is_several or executor != "processes"):
        raise typer.BadParameter("several files need --output FOLDER")
    from sqzb import predict as predicting
    from sqzb.data.formats import open_table

    columns = columns_of(text)
    if file and output is not None:
        predicting.write_predictions(path, file, output, columns, executor, overwrite)
        return
    table = open_table(file[0]) if file else predicting.sentences_table(sentences or ())
    predicting.print_predictions(path, table, columns, json)
