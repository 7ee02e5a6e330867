"""The application: every command with its example, and the way an error ends.

Heavy libraries are imported only after the arguments have been checked.
"""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from sqzb.cli.embed import embed
from sqzb.cli.evaluate import evaluate
from sqzb.cli.fill_mask import fill_mask
from sqzb.cli.finetune import finetune
from sqzb.cli.inspect_corpus import inspect_corpus
from sqzb.cli.options import RecipeCommand
from sqzb.cli.predict import predict
from sqzb.cli.prepare_corpus import prepare_corpus
from sqzb.cli.pretrain import pretrain
from sqzb.cli.recipes import recipes
from sqzb.errors import PeerLost, Stopped, UserError

INTERRUPTED = 130  # typer's exit code for Ctrl-C
DEBUG = "--debug"  # typer takes an option in one position only, so `main` reads this one

app = typer.Typer(
    help="Pretrain and finetune SqueezeBERT, a small fast encoder.",
    epilog=(
        f"Give {DEBUG} anywhere on a command line to see the traceback of an error. "
        "Example: sqzb finetune --task mrpc"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sqzb {version('sqzb')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


# --help lists the commands in this order.
app.command(
    cls=RecipeCommand, epilog="Example: sqzb prepare-corpus demo_corpus --output data/demo"
)(prepare_corpus)
app.command(epilog="Example: sqzb inspect-corpus data/corpus --n 3")(inspect_corpus)
app.command(
    cls=RecipeCommand, epilog="Example: sqzb pretrain phase1_128 --output runs/trial steps=1000"
)(pretrain)
app.command(
    cls=RecipeCommand,
    epilog="Example: sqzb finetune --task mrpc,rte --seeds 1,2,3 --output runs/two lr=2e-5",
)(finetune)
app.command(name="eval", epilog="Example: sqzb eval runs/mrpc --json mrpc.json")(evaluate)
app.command(epilog="Example: sqzb predict runs/reviews --file new.csv --output out.csv")(predict)
app.command(epilog="Example: sqzb embed runs/phase2_512 --file new.csv --output vectors.npy")(embed)
app.command(epilog='Example: sqzb fill-mask runs/phase2_512 "Paris is the [MASK] of France."')(
    fill_mask
)
app.add_typer(recipes, name="recipes")


def main() -> None:
    """Run the command line; print a UserError as one paragraph, or with --debug a traceback."""
    debug = DEBUG in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    code = _exit_code(debug)
    if "WORLD_SIZE" in os.environ:
        # At once: while Python tidies up, threads that wait for another process, or want it back,
        # can abort it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _exit_code(debug: bool) -> int:
    try:
        app()
    except UserError as error:
        if debug:
            raise
        from sqzb import console

        # All processes of a run say the same, but of a lost one.
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, PeerLost):
            (console.warn if isinstance(error, Stopped) else console.error)(str(error))
        return error.exit_code
    except SystemExit as ended:  # how typer ends, well or not
        if ended.code == INTERRUPTED:
            typer.echo("Interrupted. Finished work is kept.", err=True)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
