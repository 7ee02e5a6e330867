"""Four of GLUE's tasks from a small pretrained model, from random weights, and by transformers' Trainer.

    python scripts/bench_glue.py --model runs/small_phase1/final --glue-dir GLUE
        [--recipe recipes/small_finetune.yaml] [--output runs/bench_glue] [--sample 4000]
        [--examples N] [--json FILE] [KEY=VALUE ...]

Every task is finetuned with 3 seeds by each of
    sqzb          from the model
    transformers  Trainer with the same recipe (scripts/trainer_peer.py), from a folder with sqzb's head of that seed
                  over the model, so that both start from the same numbers
    random        sqzb from random weights, with the model's sizes and vocabulary
on GLUE's own files, SST-2 on the first so many examples of its training file (--sample). All are
whole commands with one thread, which take turns, so that their times can be compared. Goes on where
it was stopped: a run with its figures beside it is kept, one that was begun is begun anew.
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
from sqzb.finetuning.job import build_model
from sqzb.glue.tasks import task
from sqzb.recipe import FinetuneRecipe, load_recipe
from trainer_peer import Figures, copy_data, timed

TASKS, SAMPLED = ("mrpc", "rte", "cola", "sst2"), "sst2"
SEEDS = (1, 2, 3)
CONTESTANTS = {
    "sqzb": "sqzb",
    "transformers": "transformers",
    "random": "sqzb",
}  # and whose command it is
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
    most = {
        name: min(
            filter(None, (given.examples, given.sample if name == SAMPLED else None)), default=None
        )
        for name in TASKS
    }
    settings = {"recipe": recipe.model_dump(mode="json"), "examples": most}
    keep_to(given.output / SETTINGS, settings)
    runs: dict[str, dict[str, list[Figures]]] = {}
    for name in TASKS:
        copy_data(task(name), given.glue_dir, given.output / "glue", most[name])
        contestants = {
            contestant: finetuning(name, contestant, recipe, given.output)
            for contestant in CONTESTANTS
        }
        runs[name] = race(contestants, rounds=len(SEEDS))
    rows = [row for name in TASKS for row in compare(name, runs[name])]
    show(rows)
    write_report(given.json, **settings, runs=runs, rows=[as_json(row) for row in rows])


def keep_to(path: Path, settings: dict[str, Any]) -> None:
    """Runs of different settings are not to be compared."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        sys.exit(f"The runs in {path.parent} have other settings ({path}): give another --output.")


def finetuning(
    name: str, contestant: str, recipe: FinetuneRecipe, output: Path
) -> Callable[[int], Figures]:
    """A contestant of the race in a task, whose rounds are the seeds."""
    return lambda number: figures(name, contestant, SEEDS[number], recipe, output)


def figures(name: str, contestant: str, seed: int, recipe: FinetuneRecipe, output: Path) -> Figures:
    """Those of a run, which is made unless they are there."""
    folder = output / name / f"{contestant}-{seed}"
    kept = folder.with_suffix(".json")
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        of_run = {
            "task": name,
            "seed": seed,
            "output": str(folder),
            "from_scratch": contestant == "random",
        }
        run = recipe.model_copy(update=of_run)
        if contestant == "transformers":
            run = run.model_copy(update={"model": str(start(run))})
        write_json(kept, timed(CONTESTANTS[contestant], run, output / "glue", OMP_NUM_THREADS="1"))
    found: Figures = json.loads(kept.read_text(encoding="utf-8"))
    return found


def start(recipe: FinetuneRecipe) -> Path:
    """A folder with what sqzb would start from, its new head too."""
    folder = Path(f"{recipe.output}-start")
    opened = build_model(recipe, open_data(recipe), recipe.model)
    opened.model.save_pretrained(folder, opened.tokenizer)
    return folder


def compare(name: str, found: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """A row for each metric and one for the time: each contestant's spread, and that of what sqzb has more than Trainer
    in the run with the same seed."""
    rows = []
    for what in (*task(name).metrics, "seconds"):
        middle = statistics.median if what == "seconds" else statistics.fmean
        values = {contestant: [run[what] for run in runs] for contestant, runs in found.items()}
        more = [a - b for a, b in zip(values["sqzb"], values["transformers"], strict=True)]
        spreads = {contestant: Spread.of(of_one, middle) for contestant, of_one in values.items()}
        rows.append({"task": name, "what": what, **spreads, "difference": Spread.of(more, middle)})
    return rows


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value._asdict() if isinstance(value, Spread) else value for key, value in row.items()
    }


def show(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            f"{row['task']} {row['what']}",
            *(written(row["what"], row[contestant]) for contestant in CONTESTANTS),
            written(row["what"], row["difference"], "+"),
        )
        for row in rows
    ]
    title = f"{len(SEEDS)} seeds: mean (lowest to highest) of metrics in %, median of seconds"
    console.table(title, ("validation", *CONTESTANTS, "sqzb - transformers"), cells)


def written(what: str, spread: Spread, sign: str = "") -> str:
    return spread.text(f"{sign}.1f", scale=1 if what == "seconds" else 100)


if __name__ == "__main__":
    main()
