"""The command `sqzb push`."""

from pathlib import Path
from typing import Annotated

import typer


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, or a saved model.")],
    name: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The model's name on the Hugging Face Hub.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository (default: public).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without a question.")] = False,
) -> None:
    """Upload a finished model with its model card to the Hugging Face Hub.

    The command shows the files and asks before it uploads them in one commit. It needs a token with
    write access: `hf auth login`, or the variable HF_TOKEN.
    """
    from sqzb.push import push as push_model

    push_model(run, name, private, lambda question: yes or _ask(question))


def _ask(question: str) -> bool:
    """Return the user's answer.

    Raises:
        UserError: nobody can answer.
    """
    from sqzb.errors import UserError

    try:
        return typer.confirm(question)
    except typer.Abort:  # the end of the input, or Ctrl-C
        raise UserError(
            "Nothing was uploaded, because the question has no answer. Give --yes to upload "
            "without a question."
        ) from None
