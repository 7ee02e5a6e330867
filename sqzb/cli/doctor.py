"""The command `sqzb doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.options import Overwrite


def doctor(
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the facts to this file too.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show what sqzb finds on this machine, and what it means.

    Python, torch, processor, GPUs, packages, disks, the Hub: the text for a bug report.
    """
    from sqzb.doctor import as_json, examine, print_facts
    from sqzb.files import check_output, write_json

    if json is not None:
        check_output(json, overwrite)
    facts = examine()
    if json is not None:
        write_json(json, as_json(facts))
    print_facts(facts)
