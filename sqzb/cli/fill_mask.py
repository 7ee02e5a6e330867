"""The command `sqzb fill-mask`."""

from typing import Annotated

import typer

from sqzb.cli.completion import complete_run


def fill_mask(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete_run,
            help="Pretrained run, saved model, Hub id or export.",
        ),
    ],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Text with [MASK] where a token is missing.")
    ],
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of tokens for each [MASK].")
    ] = 5,
) -> None:
    """Print the most likely tokens for each [MASK] of a text."""
    from sqzb import console
    from sqzb.fill_mask import fill_mask as likeliest

    for number, tokens in enumerate(likeliest(path, text, top)):
        if number:
            console.lines([[]])
        console.lines((token, f"{probability:.1%}") for token, probability in tokens)
