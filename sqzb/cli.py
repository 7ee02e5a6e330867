"""The command line: parse, call, print.

Heavy libraries are imported only after the arguments have been checked.
"""

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

INTERRUPTED = 130  # typer's exit code for Ctrl-C
DEBUG = "--debug"  # typer takes an option in one position only, so `main` reads this one
# Panels of --help, for commands with more options than 24 lines hold.
OWN, DATA, MODEL, SEVERAL, FOLDER = "Your own data", "GLUE", "Model", "Several runs", "Folder"
RESULT = "Result"

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

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Override recipe keys (list: sqzb recipes keys).",
    ),
]
RECIPE_HELP = "YAML file, or a name that `sqzb recipes` lists."
Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `sqzb recipes` lists.")]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder to write (default: the recipe's).", rich_help_panel=FOLDER
    ),
]
Resume = Annotated[
    str,
    typer.Option(
        metavar="auto|PATH",
        help="Resume from the newest intact checkpoint, or from PATH.",
        show_default=False,
        rich_help_panel=FOLDER,
    ),
]
Executor = Literal["processes", "ray"]
GlueDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with GLUE's files, MRPC/ and so on (default: the Hub).",
        rich_help_panel=DATA,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the text; a pair is A,B.",
        rich_help_panel=OWN,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column of the label (default: recognised).", rich_help_panel=OWN
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
            if argument == "--resume" and not args[index + 1 : index + 2]:
                raise typer.BadParameter("give --resume auto, or --resume CHECKPOINT", ctx)
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


@app.command(
    cls=RecipeCommand, epilog="Example: sqzb prepare-corpus demo_corpus --output data/demo"
)
def prepare_corpus(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)] = None,
    overrides: Overrides = None,
    output: Output = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes (default: one per core).")
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="Run in local processes or on a Ray cluster.")
    ] = "processes",
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Only check the files of this corpus.", rich_help_panel=FOLDER
        ),
    ] = None,
) -> None:
    """Turn documents into a corpus for pretraining.

    An interrupted command resumes. A corpus that lost files is repaired.
    """
    if (recipe is None) == (verify is None):
        raise typer.BadParameter("give either a recipe or --verify DIR")
    from sqzb.recipe import CorpusRecipe, load_recipe

    if recipe is None:
        from sqzb.corpus.build import verify as check

        check(verify or Path())
        return
    wanted = load_recipe(CorpusRecipe, recipe, overrides or (), output=_text(output))
    from sqzb.corpus.build import build
    from sqzb.corpus.manifest import report

    report(build(wanted, workers or os.cpu_count() or 1, executor))


@app.command(epilog="Example: sqzb inspect-corpus data/corpus --n 3")
def inspect_corpus(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="Folder written by prepare-corpus.")
    ],
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Number of examples to show.")
    ] = 5,
    length: Annotated[
        int | None,
        typer.Option(min=8, metavar="N", help="Sequence length (default: the corpus's first)."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Seed that selects and masks the examples."),
    ] = 0,
) -> None:
    """Show training examples of a corpus as readable text."""
    from sqzb.pretraining.inspection import inspect

    inspect(corpus, n, length, seed)


@app.command(
    cls=RecipeCommand,
    epilog="Example: sqzb pretrain phase1_128 --output runs/trial steps=1000",
)
def pretrain(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Resume with another number of steps.", rich_help_panel=FOLDER
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the run and show its plan only.")
    ] = False,
) -> None:
    """Train a model on a prepared corpus."""
    from sqzb.recipe import PretrainRecipe, load_recipe

    wanted = load_recipe(PretrainRecipe, recipe, overrides or (), output=_text(output))
    from sqzb.pretraining import job

    job.pretrain(wanted, resume, extend, dry_run)


@app.command(
    cls=RecipeCommand,
    epilog="Example: sqzb finetune --task mrpc,rte --seeds 1,2,3 --output runs/two lr=2e-5",
)
def finetune(
    overrides: Overrides = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="GLUE task, such as mrpc; several: mrpc,rte; all nine: all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Your own data: CSV, TSV, JSONL, parquet or CoNLL; a folder; hub:owner/name.",
            rich_help_panel=OWN,
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="To measure on (default: 10 % of --train).",
            rich_help_panel=OWN,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Examples to predict later.", rich_help_panel=OWN),
    ] = None,
    text: Text = None,
    label: Label = None,
    kind: Annotated[
        Literal["classes", "number", "labels", "tokens"] | None,
        typer.Option(
            metavar="KIND",
            help="classes, number, labels or tokens (default: recognised).",
            rich_help_panel=OWN,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split of a Hub data set to train on (default: train).",
            rich_help_panel=OWN,
        ),
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="Short for --kind labels: several each.", rich_help_panel=OWN
        ),
    ] = False,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Short for --kind tokens --text COLUMN: a tag for each word.",
            rich_help_panel=OWN,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE",
            help=f"{RECIPE_HELP} Default: the model card's settings, or own_data.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="One run for each seed: 1,2,3.", rich_help_panel=SEVERAL),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of runs in parallel (default 1).",
            rich_help_panel=SEVERAL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Run, saved model or Hub id to start from.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Model finetuned on the task, to distil from; repeat it for a mean of several.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    glue_dir: GlueDir = None,
    output: Output = None,
    resume: Resume = "never",
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Resume with another number of epochs.", rich_help_panel=FOLDER
        ),
    ] = False,
) -> None:
    """Train a pretrained model on your own data, on a GLUE task, or on several tasks and seeds.

    Several runs are a sweep: runs in OUTPUT/TASK/, tables in OUTPUT/results.json.
    The runs of a recipe with stages are in OUTPUT/STAGE/TASK/.
    The same command resumes an interrupted sweep.
    """
    from sqzb.recipe import SweepRecipe, load_recipe

    changes = [*(overrides or ()), *([] if seeds is None else [_seeds(seeds)])]
    changes += [f"distillation.teacher={json.dumps(teacher)}"] if teacher else []
    if multi_label and kind not in (None, "labels"):
        raise typer.BadParameter("--multi-label is --kind labels: leave out one of them")
    if tokens is not None and (text is not None or kind not in (None, "tokens") or multi_label):
        raise typer.BadParameter(
            "--tokens COLUMN is --kind tokens --text COLUMN: leave out the others"
        )
    own_data = {
        "train": train,
        "validation": validation,
        "test": test,
        "text": tokens if tokens is not None else text,
        "label": label,
        "split": split,
        "kind": "tokens" if tokens is not None else "labels" if multi_label else kind,
    }
    for key, value in own_data.items():
        if value:
            changes.append(f"data.{key}={json.dumps(value)}")
    if train and recipe is None:
        recipe = Path("own_data")
    folders = {"glue_dir": _text(glue_dir), "output": _text(output)}
    wanted = load_recipe(SweepRecipe, recipe, changes, task=task, model=model, **folders)
    from sqzb.finetuning.sweep.plan import check_tasks, is_sweep

    check_tasks(wanted)  # before anything heavy is imported
    if is_sweep(wanted):
        if resume not in ("never", "auto") or extend:
            raise typer.BadParameter(
                "--extend and --resume PATH are for a single run; the same command resumes a sweep"
            )
        from sqzb.finetuning.sweep.run import sweep

        sweep(wanted, jobs or 1)
        return
    if jobs is not None:
        raise typer.BadParameter(
            "--jobs is for several runs: give several tasks, --seeds 1,2,3 or a grid "
            "such as sweep.lr=[1e-5,3e-5]"
        )
    from sqzb.finetuning import job
    from sqzb.finetuning.data import open_data

    (single,) = wanted.recipes(wanted.task)
    job.finetune(single, open_data(single), resume, extend)


@app.command(name="eval", epilog="Example: sqzb eval runs/mrpc --json mrpc.json")
def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Run, saved model or Hub id; several for --submission."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
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
            help="Corpus with the held-out text for a pretrained model.",
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
    columns = [] if text is None else [name.strip() for name in text.split(",")]
    if split == "test" and json is None:
        raise typer.BadParameter(
            "--split test makes predictions, not figures: give --json FILE for them; to measure "
            "test examples that have labels, give --data FILE"
        )
    if json is not None and json.is_dir():
        raise typer.BadParameter(f"--json {json} is a folder: give a file")
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
        figures = evaluate_task(
            paths[0], data_for(paths[0], task, glue_dir, data or (), columns, label), split
        )
    if json is not None:
        try:
            write_json(json, figures)
        except OSError as error:
            raise UserError(
                f"{json} cannot be written ({error.strerror}). Give another file with --json."
            ) from error


@app.command(epilog="Example: sqzb predict runs/reviews --file new.csv --output out.csv")
def predict(
    path: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Finetuned run, saved model or Hub id."),
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
            metavar="FILE",
            help="CSV, TSV, JSONL or parquet file to write; a folder for several files.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON object per line.", rich_help_panel=RESULT),
    ] = False,
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

    columns = [] if text is None else [name.strip() for name in text.split(",")]
    if file and output is not None:
        predicting.write_predictions(path, file, output, columns, executor)
        return
    table = open_table(file[0]) if file else predicting.sentences_table(sentences or ())
    predicting.print_predictions(path, table, columns, json)


@app.command(epilog="Example: sqzb embed runs/phase2_512 --file new.csv --output vectors.npy")
def embed(
    path: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run, saved model or Hub id, finetuned or not."),
    ],
    file: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="CSV, TSV, JSONL, parquet or text file; - is standard input."
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help=".npy file to write: float32 (rows, width).")
    ],
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the texts (default: as in training)."),
    ] = None,
) -> None:
    """Write a vector for each text: the mean of its tokens' last hidden states.

    Such vectors compare texts well only if the model was trained for it.
    """
    from sqzb.embed import embed_file

    columns = [] if text is None else [name.strip() for name in text.split(",")]
    embed_file(path, file, columns, output)


@app.command(epilog='Example: sqzb fill-mask runs/phase2_512 "Paris is the [MASK] of France."')
def fill_mask(
    path: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Pretrained run, saved model or Hub id."),
    ],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Text with [MASK] where a token is missing.")
    ],
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of tokens for each [MASK].")
    ] = 5,
) -> None:
    """Print the most likely tokens for each [MASK] of a text."""
    from sqzb.fill_mask import fill_mask as likeliest

    for number, tokens in enumerate(likeliest(path, text, top)):
        typer.echo(
            "\n" * bool(number)
            + "\n".join(f"{token}\t{probability:.1%}" for token, probability in tokens)
        )


recipes = typer.Typer(
    help="List, show and copy the recipes of sqzb; list recipe keys.",
    epilog="Example: sqzb recipes",
)
app.add_typer(recipes, name="recipes")


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with sqzb: command, name, purpose."""
    if context.invoked_subcommand is None:
        from sqzb.recipe import shipped

        typer.echo("\n".join(shipped.listed()))


@recipes.command(name="show", epilog="Example: sqzb recipes show phase1_128")
def show_recipe(name: Name) -> None:
    """Print a recipe."""
    from sqzb.recipe import shipped

    typer.echo(shipped.named(name).read_text(encoding="utf-8"), nl=False)


@recipes.command(name="copy", epilog="Example: sqzb recipes copy phase1_128 mine.yaml")
def copy_recipe(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="New file, or a folder (default: NAME.yaml)."),
    ] = None,
) -> None:
    """Copy a recipe to a new file, for changes of your own."""
    from sqzb.recipe import shipped

    typer.echo(f"Written: {shipped.copy(name, file)}")


@recipes.command(name="keys", epilog="Example: sqzb recipes keys pretrain")
def list_keys(
    command: Annotated[
        Literal["pretrain", "finetune", "prepare-corpus"],
        typer.Argument(metavar="COMMAND", help="pretrain, finetune or prepare-corpus."),
    ],
) -> None:
    """List a command's recipe keys with type, limits, default and description."""
    from sqzb.recipe.reference import reference

    typer.echo("\n".join(reference(command)))


def _seeds(text: str) -> str:
    """Return --seeds as an override.

    Raises:
        typer.BadParameter: the text is not whole numbers with commas between.
    """
    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise typer.BadParameter(
            f"--seeds takes whole numbers separated by commas, such as 1,2,3; not {text!r}"
        )
    return f"sweep.seed=[{text}]"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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
