"""The application: every command with its example, and the way an error ends.

Heavy libraries are imported only after the arguments have been checked.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from sqzb import __version__, console
from sqzb.cli.bench import bench
from sqzb.cli.doctor import doctor
from sqzb.cli.embed import embed
from sqzb.cli.evaluate import evaluate
from sqzb.cli.export import export
from sqzb.cli.fill_mask import fill_mask
from sqzb.cli.finetune import finetune
from sqzb.cli.help import Group
from sqzb.cli.inspect_corpus import inspect_corpus
from sqzb.cli.options import Command, RecipeCommand
from sqzb.cli.plan import plan
from sqzb.cli.predict import predict
from sqzb.cli.prepare_corpus import prepare_corpus
from sqzb.cli.pretrain import pretrain
from sqzb.cli.push import push
from sqzb.cli.recipes import recipes
from sqzb.cli.report import compare, report
from sqzb.cli.watch import watch
from sqzb.errors import PeerLost, Stopped, UserError, WrongArgument, explain

INTERRUPTED = 130  # typer's exit code for Ctrl-C
SPINS = "10000"  # tests for new work of an idle thread: about 2 % slower on a quiet machine
DEBUG = "--debug"  # typer takes an option in one position only, so `main` reads this one

app = typer.Typer(
    help="Pretrain and finetune SqueezeBERT, a small fast encoder.",
    epilog=(
        f"Give {DEBUG} anywhere on a command line to see the traceback of an error. "
        "Example: sqzb finetune --task mrpc"
    ),
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.lines([[f"sqzb {__version__}"]])
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


# --help lists the commands in this order, by panel: the class, and the example behind the name.
TRAIN, LOOK, USE = "Train", "Watch and measure", "Use"
_ADDED: list[tuple[str, Callable[..., None], str, type[Command], str]] = [
    ("prepare-corpus", prepare_corpus, TRAIN, RecipeCommand, "demo_corpus --output data/demo"),
    ("inspect-corpus", inspect_corpus, TRAIN, Command, "data/corpus --n 3"),
    ("plan", plan, TRAIN, Command, 'phase1_128 --hardware "8x H100"'),
    ("pretrain", pretrain, TRAIN, RecipeCommand, "phase1_128 --output runs/trial steps=1000"),
    (
        "finetune",
        finetune,
        TRAIN,
        RecipeCommand,
        "--task mrpc,rte --seeds 1,2,3 --output runs/two lr=2e-5",
    ),
    ("eval", evaluate, LOOK, Command, "runs/mrpc --json mrpc.json"),
    ("watch", watch, LOOK, Command, "runs/phase1"),
    ("report", report, LOOK, Command, "runs/phase1 runs/phase2 --output report.html"),
    ("compare", compare, LOOK, Command, "runs/mrpc runs/mrpc_lr2e-5"),
    ("bench", bench, LOOK, Command, "runs/reviews --against bert-base --json bench.json"),
    ("doctor", doctor, LOOK, Command, "--json machine.json"),
    ("predict", predict, USE, Command, "runs/reviews --file new.csv --output out.csv"),
    ("embed", embed, USE, Command, "runs/phase2_512 --file new.csv --output vectors.npy"),
    ("fill-mask", fill_mask, USE, Command, 'runs/phase2_512 "Paris is the [MASK] of France."'),
    ("export", export, USE, Command, "runs/reviews --format onnx --output exports/reviews"),
    ("push", push, USE, Command, "runs/reviews owner/reviews --private"),
]
for _name, _function, _panel, _kind, _example in _ADDED:
    app.command(
        _name, cls=_kind, epilog=f"Example: sqzb {_name} {_example}", rich_help_panel=_panel
    )(_function)
app.add_typer(recipes, name="recipes", rich_help_panel=TRAIN)


def main() -> None:
    """Run the command line; print a UserError as one paragraph, or with --debug a traceback."""
    # Idle threads of OpenMP spin for a shorter time than by default before they sleep, because on
    # busy cores they take it from the threads that work (scripts/bench_waiting.py). OpenMP reads
    # this when torch is imported.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
    console.prepare_streams()
    debug = DEBUG in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    code = _exit_code(debug)
    console.end_streams()
    if "WORLD_SIZE" in os.environ:
        # At once: while Python tidies up, threads that wait for another process, or want it back,
        # can abort it.
        os._exit(code)
    sys.exit(code)


def _exit_code(debug: bool) -> int:
    try:
        _check_start()
        app()
    except UserError as error:
        if debug:
            raise
        # All processes of a run say the same, but of a lost one.
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, PeerLost):
            (console.warn if isinstance(error, Stopped) else console.error)(str(error))
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        console.error(explain(error))
        return UserError.exit_code
    except SystemExit as ended:  # how typer ends, well or not
        if ended.code == INTERRUPTED:
            console.err.print("Interrupted. Finished work is kept.")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _check_start() -> None:
    """Check that the working folder exists and that all arguments are text.

    Raises:
        FileNotFoundError: the working folder has been removed; torch would end the process.
        WrongArgument: an argument is not UTF-8, which Python marks with surrogates.
    """
    os.getcwd()
    for number, argument in enumerate(sys.argv[1:], 1):
        if not argument.isascii() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise WrongArgument(
                f"Argument {number}, {argument}, is not UTF-8. Rename the file, or convert the "
                "text (iconv -t UTF-8). In a locale without UTF-8, set PYTHONUTF8=1 too."
            )
