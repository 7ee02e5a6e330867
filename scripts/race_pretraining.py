"""Pretraining recipes trained for equal time, in turns: held-out loss over time, then finetuning.

    python scripts/race_pretraining.py A.yaml B.yaml [KEY=VALUE ...] --minutes 10 --seeds 3
        [--variant NAME KEY=VALUE ...] [--glue-dir GLUE] [--output runs/race] [--slice 60]
        [--threads N] [--evaluations 10] [--json FILE]

KEY=VALUE changes a key of all recipes. A variant is the first recipe with further keys changed, as
one more contestant. A second call continues where the first one stopped.

1. Each recipe's speed is measured, in turns. Its number of steps is that speed times the minutes,
   so that every learning rate ends with the time. The time is that of the training steps alone:
   without compilation, evaluations and checkpoints.
2. For each seed, the runs take turns of --slice seconds. A turn is `sqzb pretrain --resume auto`,
   which SIGTERM stops; the resumed run is the same as an undisturbed one. So a machine whose other
   work comes and goes slows all recipes down alike.
3. The loss is heldout_mlm_loss_15, which has the same masks for all recipes, over all held-out
   sequences. The table has it at each tenth of the time, and the share of the time after which each
   recipe reaches the last loss of the first one. race.svg is the picture, if matplotlib is there.
4. With --glue-dir, each model is finetuned on MRPC, RTE, SST-2, CoLA and MNLI, by one recipe and on
   the first --examples training examples. Tasks without a folder are skipped. A folder without
   MNLI's mismatched examples is completed by the matched ones; the figure is that of the latter.
"""

import json
import os
import shutil
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench_glue import keep_to
from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.bench.curves import Curve
from sqzb.bench.race import Spread
from sqzb.bench.report import parser, write_report
from sqzb.bench.slices import STOPPED, is_finished, log_lines, run_slice, training_seconds
from sqzb.corpus.store import read_manifest
from sqzb.errors import UserError
from sqzb.files import write_json
from sqzb.glue.tasks import Task, task
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.report.pictures import check_matplotlib
from sqzb.training.run_folder import final_figures

LOSS = "heldout_mlm_loss_15"
TASKS = ("mrpc", "rte", "sst2", "cola", "mnli")
UNLIMITED = 10**7  # steps of a run whose speed is measured
POINTS = 10  # rows of the table of losses
COLOURS = ("#2a78d6", "#d6602a", "#2a9d5c", "#8a4fc3", "#b8860b", "#555555")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("recipes", nargs="+", help="recipes, then KEY=VALUE for all of them")
    arguments.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="the first recipe with other values of these keys",
    )
    arguments.add_argument("--minutes", type=float, required=True, help="of training, each run")
    arguments.add_argument("--seeds", type=int, default=1, help="number of runs of each recipe")
    arguments.add_argument("--output", type=Path, default=Path("runs/race"))
    arguments.add_argument("--slice", type=float, default=60, help="seconds of training in a turn")
    arguments.add_argument("--threads", type=int, help="threads of torch")
    arguments.add_argument("--evaluations", type=int, default=10, help="of each run")
    arguments.add_argument("--glue-dir", type=Path, help="GLUE's own files, to finetune")
    arguments.add_argument("--finetune-recipe", default="small_finetune")
    arguments.add_argument("--examples", type=int, default=4000, help="of a task, to train on")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_intermixed_args()
    # As Ctrl-C, so that no command of the race goes on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))

    contestants = contestants_of(given.recipes, given.variant)
    recipes = {}
    for name, (path, *overrides) in contestants.items():
        recipes[name] = load_recipe(PretrainRecipe, Path(path), overrides)
    check_comparable(recipes)
    settings = settings_of(recipes, given)
    keep_to(given.output / "settings.json", settings)
    speeds = measure_speeds(contestants, given)
    runs = race(contestants, speeds, given)
    curves = {name: [curve_of(run) for run in of_one] for name, of_one in runs.items()}
    show_times(speeds, curves)
    show_losses(curves, 60 * given.minutes)
    draw(curves, given.output / "race.svg")
    scores = finetune(runs, given) if given.glue_dir is not None else {}
    write_report(
        given.json,
        **settings,
        steps_per_second=speeds,
        curves={
            name: [{key: part.tolist() for key, part in curve._asdict().items()} for curve in each]
            for name, each in curves.items()
        },
        scores=scores,
    )


def contestants_of(given: Sequence[str], variants: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return each contestant's recipe and its overrides by a name: that of the recipe's file.

    given: recipes, and overrides for all of them.
    variants: the name of each, and its overrides of the first recipe.
    """
    paths = [text for text in given if "=" not in text]
    overrides = [text for text in given if "=" in text]
    named = [(Path(path).stem, [path, *overrides]) for path in paths]
    named += [(name, [paths[0], *overrides, *changes]) for name, *changes in variants]
    if len(dict(named)) < len(named):
        sys.exit("Two contestants have the same name: give another, or rename one of the files.")
    return dict(named)


def check_comparable(recipes: Mapping[str, PretrainRecipe]) -> None:
    """Exit if the held-out figures of the recipes would be of different texts, or of none."""
    texts = {(recipe.corpus, recipe.sequence_length) for recipe in recipes.values()}
    if len(texts) > 1:
        sys.exit("The recipes have different corpora or sequence lengths: give all the same.")
    for corpus, _ in texts:
        if read_manifest(Path(corpus))["heldout_unigram_nats"] is None:
            sys.exit(f"The corpus {corpus} has no held-out part: prepare it with one.")


def settings_of(recipes: Mapping[str, PretrainRecipe], given: Any) -> dict[str, Any]:
    """Return the settings on which the runs of a race depend."""
    values = {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()}
    return {"recipes": values, "minutes": given.minutes, "evaluations": given.evaluations}


# Pretraining


def measure_speeds(contestants: Mapping[str, list[str]], given: Any) -> dict[str, float]:
    """Return the steps in a second of training, measured in two turns of each recipe.

    contestants: by the recipe's name, its path and the overrides.
    """
    kept = given.output / "speeds.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    folder = given.output / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(2):
        for name, recipe in contestants.items():
            turn(recipe, folder / name, UNLIMITED, UNLIMITED, 0, given)
    speeds = {}
    for name in contestants:
        steps, seconds = training_seconds(folder / name)
        speeds[name] = float(steps[-1] / seconds[-1])
    write_json(kept, speeds)
    shutil.rmtree(folder)
    return speeds


def race(
    contestants: Mapping[str, list[str]], speeds: Mapping[str, float], given: Any
) -> dict[str, list[Path]]:
    """Train each recipe with each seed, in turns, and return the runs of each by seed."""
    runs: dict[str, list[Path]] = {name: [] for name in contestants}
    for seed in range(1, given.seeds + 1):
        folders = {name: given.output / f"{name}-{seed}" for name in contestants}
        left = [name for name in contestants if not is_finished(folders[name])]
        while left:
            for name in left:
                steps = max(1, round(60 * given.minutes * speeds[name]))
                every = max(1, steps // given.evaluations)
                turn(contestants[name], folders[name], steps, every, seed, given)
                trained = training_seconds(folders[name])
                console.out.print(
                    f"{folders[name].name}: step {trained[0][-1]:,.0f} of {steps:,}, "
                    f"{console.duration(trained[1][-1])} of training"
                )
            left = [name for name in left if not is_finished(folders[name])]
        for name, folder in folders.items():
            runs[name].append(folder)
    return runs


def turn(
    recipe: Sequence[str], run: Path, steps: int, evaluate_every: int, seed: int, given: Any
) -> None:
    """Train for a slice of time. recipe: its path and the overrides."""
    settings = [
        f"steps={steps}",
        f"seed={seed}",
        f"evaluate_every={evaluate_every}",
        "evaluate_sequences=null",
        f"checkpoint_every={UNLIMITED}",  # the signal at the end of a turn saves the run
        "keep_checkpoints=1",
    ]
    run_slice(run, [*recipe, *settings], given.slice, given.threads)


def curve_of(run: Path) -> Curve:
    """Return the losses of a run's evaluations."""
    evaluated = [line for line in log_lines(run) if LOSS in line]
    seconds = np.interp([line["step"] for line in evaluated], *training_seconds(run))
    return Curve(seconds, np.array([line[LOSS] for line in evaluated], np.float64))


# What came of it


def show_times(speeds: Mapping[str, float], curves: Mapping[str, Sequence[Curve]]) -> None:
    """Print the speed of each recipe, and the time that its runs took in fact."""
    rows = []
    for name, each in curves.items():
        taken = Spread.of([float(curve.seconds[-1]) / 60 for curve in each])
        rows.append((name, f"{speeds[name]:.2f}", taken.text(".2f")))
    heads = ("recipe", "steps/s before the race", "minutes of training: median (ends)")
    console.table("Time", heads, rows)


def show_losses(curves: Mapping[str, Sequence[Curve]], planned: float) -> None:
    """Print the loss at each tenth of a run's time, and when the first one's last loss is reached.

    planned: seconds of training. Each run's own time is taken as the whole: the speed that was
    measured before may have changed since, for all recipes alike.
    """
    rows = []
    for point in range(1, POINTS + 1):
        share = point / POINTS
        cells = []
        for each in curves.values():
            losses = [curve.at(share) for curve in each]
            cells.append(Spread.of(losses, statistics.fmean).text(".3f"))
        rows.append((f"{share * planned / 60:.3g} min", *cells))
    first = next(iter(curves))
    reached = []
    for each in curves.values():
        pairs = zip(each, curves[first], strict=True)
        shares = [curve.share_until(float(base.losses[-1])) for curve, base in pairs]
        known = [share for share in shares if share is not None]
        text = Spread.of(known, statistics.fmean).text(".0%") if known else "never"
        reached.append(text if len(known) == len(shares) else f"{text}, {len(known)} seeds")
    rows.append((f"share of the time to {first}'s last loss", *reached))
    n = len(curves[first])
    title = f"Held-out MLM loss at 15 % masks, {console.counted(n, 'seed')}: mean (ends)"
    console.table(title, ("training", *curves), rows)


def draw(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw every run's losses over time, the runs of a recipe in one colour."""
    try:
        check_matplotlib()
    except UserError as error:
        console.warn(str(error))
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, each) in enumerate(curves.items()):
        for seed, curve in enumerate(each):
            label = None if seed else name
            axes.plot(
                curve.seconds / 60,
                curve.losses,
                marker="o",
                markersize=3,
                linewidth=1.2,
                color=COLOURS[number % len(COLOURS)],
                label=label,
            )
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("held-out MLM loss at 15 % masks, nats")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    console.out.print(f"Picture: {path}")


# Finetuning


def finetune(runs: Mapping[str, Sequence[Path]], given: Any) -> dict[str, dict[str, list[float]]]:
    """Finetune every model on every task that is there; print and return the scores."""
    scores: dict[str, dict[str, list[float]]] = {}
    for name in TASKS:
        if not copy_task(task(name), given.glue_dir, given.output / "glue", given.examples):
            console.out.print(f"{name}: skipped, because {given.glue_dir} has no folder of it")
            continue
        scores[name] = {recipe: [] for recipe in runs}
        for seed in range(given.seeds):
            for recipe, of_recipe in runs.items():
                output = given.output / "finetuned" / name / of_recipe[seed].name
                if final_figures(output) is None:
                    arguments = ["--recipe", given.finetune_recipe, "--task", name]
                    arguments += ["--glue-dir", str(given.output / "glue")]
                    arguments += ["--model", str(of_recipe[seed]), "--output", str(output)]
                    arguments += ["--resume", "auto", f"seed={seed + 1}"]
                    run_sqzb("finetune", *arguments, threads=given.threads)
                figures = final_figures(output) or {}
                scores[name][recipe].append(figures["score"])
    rows = []
    for name, by_recipe in scores.items():
        cells = [Spread.of(each, statistics.fmean).text(".1f", 100) for each in by_recipe.values()]
        rows.append((name, *cells))
    title = f"Validation scores, %, {console.counted(given.seeds, 'seed')}: mean (ends)"
    console.table(title, ("task", *runs), rows)
    return scores


def copy_task(chosen: Task, glue_dir: Path, folder: Path, examples: int) -> bool:
    """Copy a task's first training examples and its validation examples, if its folder is there."""
    sources = [glue_dir / name for name in os.listdir(glue_dir) if name in chosen.folders]
    if not sources:
        return False
    target = folder / chosen.folders[0]
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", *chosen.validation_splits):
        name = chosen.files[split]
        source = sources[0] / name
        if not source.exists():
            source = sources[0] / chosen.files[chosen.validation_splits[0]]
        n_lines = examples + (not chosen.header) if split == "train" else None
        with source.open("rb") as lines, (target / name).open("wb") as copy:
            copy.writelines(islice(lines, n_lines))
    return True


if __name__ == "__main__":
    main()
