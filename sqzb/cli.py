"""The commands: parse, call, print. Nothing heavy is imported before the arguments are known to be good."""

import json
import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from sqzb.errors import PeerLost, Stopped, UserError

INTERRUPTED = 130  # what typer makes of Ctrl-C
DEBUG = "--debug"  # typer takes an option in one position only, so `main` reads this one

app = typer.Typer(
    help="Pretrain and finetune SqueezeBERT, a small fast encoder.",
    epilog=f"Give {DEBUG} anywhere on a command line to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Recipe keys to override, such as seed=1; `sqzb recipes keys` lists them.",
    ),
]
RECIPE_HELP = "A YAML file, or the name of a recipe that `sqzb recipes` lists."
Recipe = Annotated[Path, typer.Argument(help=RECIPE_HELP)]
Name = Annotated[str, typer.Argument(help="The name of a recipe that `sqzb recipes` lists.")]
Output = Annotated[Path | None, typer.Option(help="The folder to write; by default the recipe's.")]
Resume = Annotated[
    str,
    typer.Option(
        help="auto: go on from the newest whole checkpoint, if there is one; or the path of one."
    ),
]
Executor = Literal["processes", "ray"]
GlueDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of GLUE's own files (MRPC/, RTE/ ...); by default they come from the Hub."
    ),
]


class RecipeCommand(TyperCommand):
    """A command with a recipe, which recognises recipe keys that are given as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as any command does.

        Raises:
            typer.BadParameter: `--steps 10` is given for `steps=10`.
        """
        options = {"--help"}
        for parameter in self.params:
            options.update(parameter.opts, parameter.secondary_opts)
        for index, argument in enumerate(args):
            option, _, value = argument.partition("=")
            if argument == "--":
                break
            if not option.startswith("--") or option in options:
                continue
            from sqzb.recipe.commands import COMMANDS
            from sqzb.recipe.explanations import same_key

            name = option[2:].replace("-", "_")
            for key in same_key(COMMANDS[str(self.name)], name)[:1]:
                following = "".join(args[index + 1 : index + 2])
                value = value or ("" if following.startswith("-") else following)
                # The value of a key of another name may be in another unit: steps and epochs.
                if not value or not f".{key}".endswith(f".{name}"):
                    value = "VALUE"
                problem = f"no such option: {option}. Recipe keys have no dashes: {key}={value}"
                raise typer.BadParameter(problem, ctx)
        return super().parse_args(ctx, args)


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


@app.command(cls=RecipeCommand)
def prepare_corpus(
    recipe: Annotated[Path | None, typer.Argument(help=RECIPE_HELP)] = None,
    overrides: Overrides = None,
    output: Output = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="Who does the work: processes here, or a Ray cluster.")
    ] = "processes",
    verify: Annotated[
        Path | None, typer.Option(help="Check the files of this corpus, and do nothing else.")
    ] = None,
) -> None:
    """Read documents, clean and split them, tokenise them, and cut them into chunks for pretraining.

    Goes on where it was stopped, and mends a finished corpus that has lost files.
    """
    if (recipe is None) == (verify is None):
        raise typer.BadParameter("give a recipe, or --verify DIR, one of the two")
    from sqzb.recipe import CorpusRecipe, load_recipe

    if recipe is None:
        from sqzb.corpus.build import verify as check

        check(verify or Path())
        return
    wanted = load_recipe(CorpusRecipe, recipe, overrides or (), output=_text(output))
    from sqzb.corpus.build import build
    from sqzb.corpus.manifest import report

    report(build(wanted, workers or os.cpu_count() or 1, executor))


@app.command()
def inspect_corpus(
    corpus: Annotated[Path, typer.Argument(help="A folder written by prepare-corpus.")],
    n: Annotated[int, typer.Option("--n", min=1, help="So many examples.")] = 5,
    length: Annotated[
        int | None, typer.Option(min=8, help="Sequence length; by default the corpus's first.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of which examples, and how they are masked.")
    ] = 0,
) -> None:
    """Show training examples as a person reads them: segments, order, and what the model is asked."""
    from sqzb.pretraining.inspection import inspect

    inspect(corpus, n, length, seed)


@app.command(cls=RecipeCommand)
def pretrain(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool, typer.Option("--extend", help="Go on with another number of steps.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, train nothing.")
    ] = False,
) -> None:
    """Train a model on a prepared corpus: masked tokens and sentence order, LAMB, exact global batches."""
    from sqzb.recipe import PretrainRecipe, load_recipe

    wanted = load_recipe(PretrainRecipe, recipe, overrides or (), output=_text(output))
    from sqzb.pretraining import job

    job.pretrain(wanted, resume, extend, dry_run)


@app.command(cls=RecipeCommand)
def finetune(
    overrides: Overrides = None,
    task: Annotated[
        str | None,
        typer.Option(help="The GLUE task, such as mrpc; several, as mrpc,rte; or all nine: all."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help=f"{RECIPE_HELP} By default, the model card's settings."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="A run with each seed, such as 1,2,3.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="So many of several runs at once; by default 1.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A run, a saved model or a Hub id to start from.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A model finetuned on the task, to learn from too; given several times, from their mean."
        ),
    ] = None,
    glue_dir: GlueDir = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool, typer.Option("--extend", help="Go on with another number of epochs.")
    ] = False,
) -> None:
    """Train a pretrained model on a GLUE task, or on several, with several seeds and settings: a sweep.

    A sweep goes on where it was stopped; its runs lie in OUTPUT/TASK/, or OUTPUT/STAGE/TASK/ where the recipe has
    stages, and its tables in OUTPUT/results.json.
    """
    from sqzb.recipe import SweepRecipe, load_recipe

    changes = [*(overrides or ()), *([] if seeds is None else [_seeds(seeds)])]
    changes += [f"distillation.teacher={json.dumps(teacher)}"] if teacher else []
    folders = {"glue_dir": _text(glue_dir), "output": _text(output)}
    wanted = load_recipe(SweepRecipe, recipe, changes, task=task, model=model, **folders)
    from sqzb.finetuning.sweep.plan import is_sweep

    if is_sweep(wanted):
        if resume not in ("never", "auto") or extend:
            raise typer.BadParameter(
                "--extend and --resume PATH are for a single run; a sweep goes on by itself"
            )
        from sqzb.finetuning.sweep.run import sweep

        sweep(wanted, jobs or 1)
        return
    if jobs is not None:
        raise typer.BadParameter(
            "--jobs is for several runs: give several tasks, --seeds, or a grid"
        )
    from sqzb.finetuning import job
    from sqzb.finetuning.data import open_data

    (single,) = wanted.recipes(wanted.task)
    job.finetune(single, open_data(single), resume, extend)


@app.command(name="eval")
def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="A run, a saved model or a Hub id; several for --submission."
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="The GLUE task; by default the one it was finetuned on.")
    ] = None,
    split: Annotated[
        Literal["validation", "test"],
        typer.Option(help="test: predictions, which --json holds by index."),
    ] = "validation",
    glue_dir: GlueDir = None,
    corpus: Annotated[
        Path | None, typer.Option(help="A prepared corpus, for a pretrained model.")
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help="The zip for GLUE to write, from a run of each task or folders of runs."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="A file to write all figures to.")] = None,
) -> None:
    """Evaluate a finetuned model on its task, or a pretrained one on the held-out part of a corpus."""
    if submission is None and len(paths) > 1:
        raise typer.BadParameter("give one RUN; several are for --submission")
    if submission is not None and (task is not None or corpus is not None):
        raise typer.BadParameter(
            "--submission takes the tasks of the runs: leave out --task and --corpus"
        )
    if split == "test" and json is None:
        raise typer.BadParameter(
            "--split test has predictions in place of figures: give --json FILE, which holds them"
        )
    from sqzb.evaluate import evaluate_corpus, evaluate_task
    from sqzb.files import write_json
    from sqzb.finetuning.finetuned import data_for
    from sqzb.finetuning.submit import submit
    from sqzb.glue.data import open_task

    figures: dict[str, Any]
    if submission is not None:
        figures = submit(paths, submission, partial(open_task, folder=glue_dir))
    elif corpus is not None:
        figures = evaluate_corpus(paths[0], corpus)
    else:
        figures = evaluate_task(paths[0], data_for(paths[0], task, glue_dir), split)
    if json is not None:
        write_json(json, figures)


@app.command()
def predict(
    path: Annotated[str, typer.Argument(help="A finetuned run, a saved model or a Hub id.")],
    sentences: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE [SECOND]", help="What to predict, one or a pair."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A text file instead: a line each, a tab between two.")
    ] = None,
) -> None:
    """Show what a finetuned model says: the label and each one's probability, or the score; a line for each line."""
    if (not sentences) == (file is None):
        raise typer.BadParameter("give a sentence, or --file, one of the two")
    if len(sentences or ()) > 2:
        raise typer.BadParameter("give one sentence or two; put each into quotes")
    from sqzb import predict as predicting
    from sqzb.data.lines import read_lines

    rows = [tuple(sentences or ())] if file is None else read_lines(file)
    for prediction in predicting.predict(path, rows, file):
        typer.echo(predicting.shown(prediction))


@app.command()
def fill_mask(
    path: Annotated[str, typer.Argument(help="A pretrained run, a saved model or a Hub id.")],
    text: Annotated[
        str, typer.Argument(help='A text with [MASK] in it, as "Paris is the [MASK] of France."')
    ],
    top: Annotated[int, typer.Option(min=1, help="So many tokens for each [MASK].")] = 5,
) -> None:
    """Show the likeliest tokens for each [MASK] of a text, with their probabilities."""
    from sqzb import predict as predicting

    for number, tokens in enumerate(predicting.fill_mask(path, text, top)):
        typer.echo(
            "\n" * bool(number)
            + "\n".join(f"{token}\t{probability:.1%}" for token, probability in tokens)
        )


recipes = typer.Typer(
    help="List the recipes that come with sqzb; show or copy one; list the keys of recipes."
)
app.add_typer(recipes, name="recipes")


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with sqzb: their command, their name and what they are for."""
    if context.invoked_subcommand is None:
        from sqzb.recipe import shipped

        typer.echo("\n".join(shipped.listed()))


@recipes.command(name="show")
def show_recipe(name: Name) -> None:
    """Print a recipe."""
    from sqzb.recipe import shipped

    typer.echo(shipped.named(name).read_text(encoding="utf-8"), nl=False)


@recipes.command(name="copy")
def copy_recipe(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The file to write, or a folder; by default NAME.yaml in the working directory."
        ),
    ] = None,
) -> None:
    """Copy a recipe to a file of your own, which must not exist yet."""
    from sqzb.recipe import shipped

    typer.echo(f"{shipped.copy(name, file)} is written")


@recipes.command(name="keys")
def list_keys(
    command: Annotated[
        Literal["pretrain", "finetune", "prepare-corpus"],
        typer.Argument(metavar="COMMAND", help="pretrain, finetune or prepare-corpus."),
    ],
) -> None:
    """List every key of a command's recipes, with its default, type, limits and description."""
    from sqzb.recipe.reference import reference

    typer.echo("\n".join(reference(command)))


def _seeds(text: str) -> str:
    """Return --seeds as an override.

    Raises:
        typer.BadParameter: the text is not whole numbers with commas between.
    """
    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise typer.BadParameter(
            f"--seeds takes whole numbers with commas between, such as 1,2,3; not {text!r}"
        )
    return f"sweep.seed=[{text}]"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def main() -> None:
    """Run the command line; an error that the user can mend is one paragraph, unless --debug asks for more."""
    debug = DEBUG in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    code = _exit_code(debug)
    if "WORLD_SIZE" in os.environ:
        # At once: while Python tidies up, threads that wait for another process, or want it back, can abort it.
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
            typer.echo("interrupted; what was finished is kept", err=True)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
