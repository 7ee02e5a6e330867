"""The command `sqzb bench`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.completion import complete_run, complete_tasks
from sqzb.cli.options import DATA, OWN, RESULT, GlueDir, Label, Overwrite, Text, columns_of


def bench(
    path: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="Run, saved model, Hub id, or export.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Model to compare with, or bert-base: random weights of its sizes.",
        ),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="torch, compiled, onnx, openvino, executorch (default: all installed ones).",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="fp32, bf16, int8 (default: all that the CPU has)."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads of a cell.")] = 1,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Texts of a call.")] = 1,
    length: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens of a text, random ones (default: 128)."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Turns of each cell.")] = 10,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Time texts of this file; with labels, measure accuracy too.",
            rich_help_panel=OWN,
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_tasks,
            help="Time validation sentences of this GLUE task; measure accuracy too.",
            rich_help_panel=DATA,
        ),
    ] = None,
    glue_dir: GlueDir = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures to this file too.", rich_help_panel=RESULT
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw latency against accuracy (SVG).", rich_help_panel=RESULT
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure latency, memory and size of a model in each runtime.

    Every runtime and precision is a cell in a process of its own, and cells take turns.
    """
    if data and task is not None:
        raise typer.BadParameter("give --data FILE or --task NAME")
    if length is not None and (data or task is not None):
        raise typer.BadParameter(
            "--length is for random tokens: leave it out with --data or --task"
        )
    if (text is not None or label is not None) and not data:
        raise typer.BadParameter("--text and --label name columns of --data FILE: give it too")
    if glue_dir is not None and task is None:
        raise typer.BadParameter("--glue-dir is for --task NAME")
    if picture is not None and not (data or task is not None):
        raise typer.BadParameter(
            "--picture draws accuracy: give --data FILE with labels, or --task NAME"
        )
    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter(f"--picture {picture}: give a file that ends with .svg")
    from sqzb.files import check_output

    for output in (json, picture):
        if output is not None:
            check_output(output, overwrite)
    from sqzb.bench import picture as drawing
    from sqzb.bench.latency import bench as measure
    from sqzb.bench.latency_report import as_json, print_results
    from sqzb.bench.report import write_report
    from sqzb.bench.results import Wanted
    from sqzb.bench.texts import Source

    if picture is not None:
        drawing.check_matplotlib()
    texts = None
    if data or task is not None:
        texts = Source(data or (), columns_of(text), label, task, glue_dir)
    wanted = Wanted(
        path=path,
        against=against,
        runtimes=columns_of(runtimes),
        precisions=columns_of(precisions),
        threads=threads,
        batch=batch,
        length=length,
        texts=texts,
        rounds=rounds,
        needs_accuracy=picture is not None,
    )
    results = measure(wanted)
    # The figures are on the disk before they are printed.
    write_report(json, **as_json(results))
    if picture is not None:
        drawing.draw(results, picture)
    print_results(results)
