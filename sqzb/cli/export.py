"""The command `sqzb export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sqzb.cli.options import RESULT


def export(
    path: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Run, saved model or Hub id, finetuned or not."),
    ],
    format: Annotated[
        Literal["onnx", "openvino", "executorch"],
        typer.Option(metavar="NAME", help="Runtime: onnx, openvino or executorch."),
    ],
    precision: Annotated[
        Literal["fp32", "bf16", "int8"],
        typer.Option(
            metavar="NAME",
            help="Numbers of the products: fp32, bf16 (openvino) or int8 (onnx).",
        ),
    ] = "fp32",
    scales: Annotated[
        Literal["dynamic", "static"] | None,
        typer.Option(
            metavar="NAME",
            help="Scales of activations in int8: dynamic (default), or static: calibrated on "
            "training texts.",
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        Literal["classifier", "mlm", "encoder", "vectors"] | None,
        typer.Option(
            metavar="NAME",
            help="classifier, mlm (logits of all tokens), encoder (hidden states) or vectors (one "
            "for each text); default: the model's own.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write (default: exports/RUN-FORMAT-PRECISION).",
            rich_help_panel=RESULT,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Export bf16 or int8 even if it loses over a point, or is not measured.",
            rich_help_panel=RESULT,
        ),
    ] = False,
) -> None:
    """Export a model for a runtime, and check it against the model in torch.

    The extras onnx, openvino and executorch install the runtimes.
    """
    if scales is not None and precision != "int8":
        raise typer.BadParameter("--scales is for --precision int8")
    from sqzb.export.job import Wanted, default_output
    from sqzb.export.job import export as export_model

    kind = scales or "dynamic"
    folder = output or default_output(path, format, precision, kind)
    export_model(Wanted(path, format, precision, head, folder, force, kind))
