"""Four GLUE tasks from a small pretrained model, from random weights, and by transformers' Trainer.

    python scripts/bench_glue.py --model runs/small_phase1/final --glue-dir GLUE
        [--recipe recipes/small_finetune.yaml] [--output runs/bench_glue] [--sample 4000]
        [--examples N] [--json FILE] [KEY=VALUE ...]

Each of these finetunes every task with 3 seeds:
    sqzb          from the model
    transformers  Trainer with the same recipe (scripts/trainer_peer.py), from a folder with the
                  model and sqzb's head of that seed, so that both start from equal weights
    random        sqzb from random weights, with the model's sizes and vocabulary
The data are GLUE's own files; SST-2 has the first examples of its training file only (--sample).
All runs are whole commands with one thread, which take turns, so that their times can be compared.
A second call continues: it keeps runs with figures, and repeats a run that was interrupted.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import parser, write_report
from sqzb.files import write_json
from sqzb.finetuning.data import open_data
from sqzb.finetuning.start import build_model
from sqzb.glue.tasks import task
from sqzb.recipe import FinetuneRecipe, load_recipe
from trainer_peer import Figures, copy_data, timed

TASKS, SAMPLED = ("mrpc", "rte", "cola", "sst2"), "sst2"
SEEDS = (1, 2, 3)
# The command that runs each contestant.
CONTESTANTS = {"sqzb": "sqzb", "transformers": "transformers", "random": "sqzb"}
SETTINGS = "settings.json"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", required=True, help="a saved model, with a tokenizer")
    arguments.add_argument(
        "--glue-dir", type=Path, required=True, help="GLUE's own files, MRPC/, RTE/ ..."
    )
    arguments.add_argument("--recipe", type=Path, default=Path("recipes/small_finetune.yaml"))
    arguments.add_argument("--output", type=Path, default=Path("runs/bench_glue"))
    arguments.add_argument(
        "--sample", type=int, default=4000, help="examples that SST-2 is trained on"
    )
    arguments.add_argument(
        "--examples", type=int, help="train each task on no more, to try this out"
    )
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    given = arguments.parse_args()
    recipe = load_recipe(FinetuneRecipe, given.recipe, given.overrides).model_copy(
        update={"model": given.model}
    )
    n_examples: dict[str, int | None] = {}
    for name in TASKS:
        limits = [given.examples, given.sample if name == SAMPLED else None]
        n_examples[name] = min(filter(None, limits), default=None)
    settings = {"recipe": recipe.model_dump(mode="json"), "examples": n_examples}
    keep_to(given.output / SETTINGS, settings)
    runs: dict[str, dict[str, list[Figures]]] = {}
    for name in TASKS:
        copy_data(task(name), given.glue_dir, given.output / "glue", n_examples[name])
        contestants = {
            contestant: finetuning(name, contestant, recipe, given.output)
            for contestant in CONTESTANTS
        }
        runs[name] = race(contestants, rounds=len(SEEDS))
    rows = [row for name in TASKS for row in compare(name, runs[name])]
    show(rows)
    write_report(given.json, **settings, runs=runs, rows=[as_json(row) for row in rows])


def keep_to(path: Path, settings: dict[str, Any]) -> None:
    """Exit if the runs in the folder have other settings, because they could not be compared."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        sys.exit(f"The runs in {path.parent} have other settings ({path}): give another --output.")


def finetuning(
    name: str, contestant: str, recipe: FinetuneRecipe, output: Path
) -> Callable[[int], Figures]:
    """Return a contestant of the race in a task, whose rounds are the seeds."""
    return lambda number: figures(name, contestant, SEEDS[number], recipe, output)


def figures(name: str, contestant: str, seed: int, recipe: FinetuneRecipe, output: Path) -> Figures:
    """Return the figures of a run, after running it if it has none."""
    folder = output / name / f"{contestant}-{seed}"
    kept = folder.with_suffix(".json")
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            "task": name,
            "seed": seed,
            "output": str(folder),
            "from_scratch": contestant == "random",
        }
        run = recipe.model_copy(update=settings)
        if contestant == "transformers":
            run = run.model_copy(update={"model": str(start(run))})
        write_json(kept, timed(CONTESTANTS[contestant], run, output / "glue", OMP_NUM_THREADS="1"))
    of_run: Figures = json.loads(kept.read_text(encoding="utf-8"))
    return of_run


def start(recipe: FinetuneRecipe) -> Path:
    """Write a folder with the model and the new head that sqzb starts from, and return it."""
    folder = Path(f"{recipe.output}-start")
    opened = build_model(recipe, open_data(recipe), recipe.model)
    opened.model.save_pretrained(folder, opened.tokenizer)
    return folder


def compare(name: str, runs: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """Return a row for each metric and one for the time.

    A row has each contestant's spread, and the spread of the differences between sqzb and Trainer
    with the same seed.
    """
    rows = []
    for figure in (*task(name).metrics, "seconds"):
        middle = statistics.median if figure == "seconds" else statistics.fmean
        values: dict[str, list[float]] = {}
        for contestant, of_one in runs.items():
            values[contestant] = [run[figure] for run in of_one]
        more = [a - b for a, b in zip(values["sqzb"], values["transformers"], strict=True)]
        spreads = {contestant: Spread.of(of_one, middle) for contestant, of_one in values.items()}
        difference = Spread.of(more, middle)
        rows.append({"task": name, "what": figure, **spreads, "difference": difference})
    return rows


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value._asdict() if isinstance(value, Spread) else value for key, value in row.items()
    }


def show(rows: list[dict[str, Any]]) -> None:
    cells = []
    for row in rows:
        of_each = [written(row["what"], row[contestant]) for contestant in CONTESTANTS]
        difference = written(row["what"], row["difference"], "+")
        cells.append((f"{row['task']} {row['what']}", *of_each, difference))
    title = f"{len(SEEDS)} seeds: mean (lowest to highest) of metrics in %, median of seconds"
    console.table(title, ("validation", *CONTESTANTS, "sqzb - transformers"), cells)


def written(figure: str, spread: Spread, sign: str = "") -> str:
    return spread.text(f"{sign}.1f", scale=1 if figure == "seconds" else 100)


if __name__ == "__main__":
    main()
