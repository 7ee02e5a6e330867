"""The command `sqzb eval`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from sqzb.cli.completion import complete_run, complete_tasks
from sqzb.cli.options import DATA, OWN, GlueDir, Label, Overwrite, Text, columns_of


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="Run, saved model, Hub id or export; several for --submission.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_tasks,
            help="GLUE task (default: the one of the finetuning).",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Annotated[
        Literal["validation", "test"],
        typer.Option(
            metavar="SPLIT",
            help="validation, or test: predictions for --json (default: validation).",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = "validation",
    glue_dir: GlueDir = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Other examples than the run's own data, to measure on.",
            rich_help_panel=OWN,
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Corpus with held-out text for a pretrained model (default: the run's).",
            rich_help_panel=DATA,
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(metavar="ZIP", help="Write GLUE's submission, from one run of each task."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate a finetuned or a pretrained model."""
    if submission is None and len(paths) > 1:
        raise typer.BadParameter("give one RUN; several RUNs are for --submission ZIP")
    if submission is not None and (task is not None or corpus is not None):
        raise typer.BadParameter(
            "--submission takes the tasks of the runs: leave out --task and --corpus"
        )
    if data and (task is not None or corpus is not None or submission is not None):
        raise typer.BadParameter("--data is for a run on data of your own: leave out the others")
    if (text is not None or label is not None) and not data:
        raise typer.BadParameter("--text and --label name columns of --data FILE: give it too")
    columns = columns_of(text)
    if split == "test" and json is None:
        raise typer.BadParameter(
            "--split test makes predictions, not figures: give --json FILE for them; to measure "
            "test examples that have labels, give --data FILE"
        )
    if json is not None and json.is_dir():
        raise typer.BadParameter(f"--json {json} is a folder: give a file")
    from sqzb.files import check_output, write_json

    for output in (json, submission):
        if output is not None:
            check_output(output, overwrite)
    from sqzb.evaluate import corpus_of, data_of, evaluate_corpus, evaluate_task
    from sqzb.finetuning.submit import submit
    from sqzb.glue.data import open_task

    # The figures are on the disk before they are printed.
    keep = (lambda figures: None) if json is None else partial(write_json, json)
    if corpus is None and task is None and not data and submission is None:
        corpus = corpus_of(paths[0])
    if submission is not None:
        submit(paths, submission, partial(open_task, folder=glue_dir), keep)
    elif corpus is not None:
        evaluate_corpus(paths[0], corpus, keep)
    else:
        used = data_of(paths[0], task, glue_dir, data or (), columns, label)
        evaluate_task(paths[0], used, split, keep)
