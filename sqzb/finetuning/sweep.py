"""Many runs of finetune, over tasks, settings and seeds, each an ordinary run in a process of its own; and their table.

Nothing but the runs' own folders says how far a sweep has come.
"""

import fcntl
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sqzb import console
from sqzb.errors import Stopped, UserError
from sqzb.files import locked, whole_file, write_json
from sqzb.finetuning import metrics
from sqzb.finetuning.tasks import TASKS, task
from sqzb.hub import local_folder
from sqzb.recipe import FinetuneRecipe, SweepRecipe, dump_recipe, load_recipe
from sqzb.training.guards import SIGNALS, Signals
from sqzb.training.runlog import METRICS, RECIPE, refuse_used

ALL, OUTPUT, RESULTS = "all", "runs/glue", "results.json"
CONVENTION = "the mean over tasks of each task's mean metric, MNLI's two halves as one task"
LAST_LINES = 3  # of a failed run's output, to show
WAIT = 0.1  # seconds between two looks at the processes

Figures = dict[str, float]


class Run(NamedTuple):
    """One run of a sweep; setting: its values of the grid but the seed, as lr=1e-05,batch=16, or nothing."""

    setting: str
    recipe: FinetuneRecipe

    @property
    def folder(self) -> Path:
        return Path(self.recipe.output or "")

    @property
    def name(self) -> str:
        return f"{self.recipe.task}/{self.folder.name}"

    def beside(self, suffix: str) -> Path:
        """A file of the sweep's about the run, whose own folder must be empty when it begins."""
        return self.folder.with_name(self.folder.name + suffix)


def is_sweep(recipe: SweepRecipe) -> bool:
    """Whether the recipe is for more than one plain run: by several tasks, or by a grid, of whatever size."""
    return bool(recipe.grid()) or (recipe.task is not None and (recipe.task == ALL or "," in recipe.task))


def sweep(recipe: SweepRecipe, glue_dir: Path | None, jobs: int = 1) -> dict[str, Any]:
    """Run all that is not finished, `jobs` at once, then print the table and write it to OUTPUT/results.json; its
    content.

    Each run has one of the GPUs that are visible, or a share of the cores. Raises UserError before anything runs when
    the sweep cannot be as the recipe has it, and at the end, behind the table, when runs have failed; Stopped when a
    signal came, once the runs that were at work have saved themselves.
    """
    if "WORLD_SIZE" in os.environ:
        raise UserError("A sweep starts processes of its own. Start it without accelerate or torchrun, with --jobs.")
    output = Path(recipe.output or OUTPUT)
    runs = plan(recipe, output)
    _check(output, runs)
    for model in {run.recipe.model for run in runs}:
        local_folder(model)  # once, before several processes would download it
    output.mkdir(parents=True, exist_ok=True)
    with locked(output) as ours:
        if not ours:
            raise UserError(f"Another sweep is at work in {output}. Wait for it, or give another --output.")
        failed = _run_all(runs, glue_dir, jobs)
        results = summary(runs) | {"failed": [run.name for run in failed]}
        write_json(output / RESULTS, results)
    report(output, results)
    if failed:
        listed = "".join(f"\n  {run.name}: {said}" for run, said in failed.items())
        raise UserError(f"{len(failed)} of {len(runs)} runs failed:{listed}\nThe same command tries these again.")
    return results


def plan(recipe: SweepRecipe, output: Path) -> list[Run]:
    """The sweep's runs, whose folders are `output`/TASK/SETTINGS; UserError when a task is none of GLUE's."""
    if recipe.task is None:
        raise UserError("There is no task: give --task, such as --task mrpc,rte or --task all.")
    nine = [name for name, row in TASKS.items() if not row.model_of]
    names = nine if recipe.task == ALL else [name.strip() for name in recipe.task.split(",")]
    for name in (*names, *recipe.tasks):
        task(name)
    keys = [key for key in recipe.grid() if key != "seed"]
    runs = []
    for name in dict.fromkeys(names):
        for one in recipe.recipes(name):
            setting = ",".join(f"{key}={_written(getattr(one, key))}" for key in keys)
            folder = output / name / ",".join(filter(None, (setting, f"seed={one.seed}")))
            runs.append(Run(setting, one.model_copy(update={"output": str(folder)})))
    return runs


def _written(value: Any) -> str:
    """A value as a part of a folder's name."""
    return quote(value if isinstance(value, str) else json.dumps(value), safe="")


def _check(output: Path, runs: Sequence[Run]) -> None:
    """UserError, with all of them, for folders that hold something other than the sweep's own runs."""
    if (output / RECIPE).exists():
        raise UserError(f"{output} is the folder of a single run. Give another --output.")
    problems = []
    for run in runs:
        if not (run.folder / RECIPE).exists():
            refuse_used(run.folder)
            continue
        before = load_recipe(FinetuneRecipe, run.folder / RECIPE).model_dump()
        problems += [
            f"{run.folder}: {key} was {before[key]}, is {value}"
            for key, value in run.recipe.model_dump().items()
            if value != before[key] and key not in FinetuneRecipe.may_change
        ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(
            f"The sweep in {output} has runs of another recipe:{listed}\nPut these back, or give another --output."
        )


# The processes


def _run_all(runs: Sequence[Run], glue_dir: Path | None, jobs: int) -> dict[Run, str]:
    """Run what is not finished; of each run that failed, how. Stopped when a signal asked for it."""
    waiting = [run for run in runs if figures(run.folder) is None]
    free = _environments(jobs) if waiting else []
    at_work: dict[Run, tuple[subprocess.Popen[bytes], dict[str, str]]] = {}
    failed: dict[Run, str] = {}
    signals, told = Signals(), False
    with signals.caught(), console.bar("Sweep", len(runs), len(runs) - len(waiting)) as bar:
        try:
            while at_work or (waiting and not signals.received):
                for run in waiting if free and not signals.received else ():
                    if free and (process := _start(run, glue_dir, free[0])) is not None:
                        at_work[run] = process, free.pop(0)
                waiting = [run for run in waiting if run not in at_work]
                if signals.received and not told:
                    told = True
                    for process, _ in at_work.values():
                        process.send_signal(signals.received)
                for run, (process, environment) in list(at_work.items()):
                    if process.poll() is not None:
                        del at_work[run]
                        free.append(environment)
                        failure = _ended(run, process.returncode)
                        if failure and signals.received:
                            waiting.append(run)  # it has stopped
                        else:
                            failed |= failure
                held = "waits for runs that a killed sweep left at work" if waiting and not signals.received else ""
                bar.to(len(runs) - len(waiting) - len(at_work), ", ".join(run.name for run in at_work) or held)
                time.sleep(WAIT)
        finally:  # none is left behind where the sweep itself fails
            for process, _ in at_work.values():
                process.terminate()
                process.wait()
    if signals.received and waiting:
        name = next(number.name for number in SIGNALS if number == signals.received)
        finished = len(runs) - len(waiting) - len(failed)
        raise Stopped(
            f"{name}: the sweep has stopped with {finished} of {len(runs)} runs finished, and those that were at work "
            "are saved. The same command goes on.",
            signals.received,
        )
    return failed


def _environments(jobs: int) -> list[dict[str, str]]:
    """What the process of each slot sees: one of the GPUs that are visible here, and its share of the cores."""
    if jobs == 1:
        return [dict(os.environ)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(number) for number in range(torch.cuda.device_count())]
    else:
        gpus = [name for name in visible.split(",") if name]
    share = str(max(1, (os.cpu_count() or 1) // jobs))
    common = {"OMP_NUM_THREADS": share} | os.environ
    return [common | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}) for slot in range(jobs)]


def _start(run: Run, glue_dir: Path | None, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Begin the run or go on with it; None while a process that a killed sweep has left behind is at work on it.

    The lock on the log goes with it to the process, so it is held until that ends, whatever becomes of the sweep.
    """
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with run.beside(".log").open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        log.truncate(0)
        with whole_file(run.beside(".yaml")) as aside:
            aside.write_text(dump_recipe(run.recipe), encoding="utf-8")
        command = [sys.executable, "-m", "sqzb", "finetune", "--recipe", str(run.beside(".yaml")), "--resume", "auto"]
        command += [] if glue_dir is None else ["--glue-dir", str(glue_dir)]
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _ended(run: Run, code: int) -> dict[Run, str]:
    """Say how a run ended; where it failed, its exit code and what it said last."""
    found = figures(run.folder)
    if code == 0 and found is not None:
        console.out.print(f"{run.name}: {found['score']:.1%}")
        return {}
    lines = run.beside(".log").read_text(encoding="utf-8", errors="replace").splitlines()
    last = "".join(f"\n    {line.strip()}" for line in [line for line in lines if line.strip()][-LAST_LINES:])
    return {run: f"exit code {code}, {run.beside('.log')}{last}"}


# The table


def figures(folder: Path) -> Figures | None:
    """The last evaluation of a finished run by metric, with GLUE's `score`; None if it is not finished.

    A run's last line is that evaluation, which is behind the writing of final/.
    """
    if not (folder / "final").is_dir() or not (folder / METRICS).exists():
        return None
    try:
        last = json.loads((folder / METRICS).read_text(encoding="utf-8").splitlines()[-1])
    except (ValueError, IndexError):
        return None
    found = {key.removeprefix("validation_"): value for key, value in last.items() if key.startswith("validation_")}
    return found if "score" in found else None


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Of the runs that are finished: each, a row for each task and setting, and GLUE's averages.

    A row is of its seeds' scores. A task's best setting is that of the highest mean. The averages, null where
    a task is missing, are of the best settings' means.
    """
    finished = [(run, found) for run in runs if (found := figures(run.folder)) is not None]
    scores: dict[tuple[str, str], list[float]] = {}
    for run, found in finished:
        scores.setdefault((str(run.recipe.task), run.setting), []).append(found["score"])
    rows = [{"task": name, "setting": setting, **spread(values)} for (name, setting), values in scores.items()]
    best: dict[str, float] = {}
    for row in rows:
        best[row["task"]] = max(row["mean"], best.get(row["task"], row["mean"]))
    for row in rows:
        row["best_setting"] = row["mean"] == best[row["task"]]
    return {
        "runs": [
            {"task": run.recipe.task, "setting": run.setting, "seed": run.recipe.seed, "folder": str(run.folder)}
            | found
            for run, found in finished
        ],
        "rows": rows,
        "average": {"of": CONVENTION, "with_wnli": _average(best, True), "without_wnli": _average(best, False)},
    }


def spread(scores: Sequence[float]) -> dict[str, Any]:
    """n, median, mean, sd (n - 1 in its denominator; None for one score) and the best."""
    return {
        "n": len(scores),
        "median": statistics.median(scores),
        "mean": statistics.fmean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "best": max(scores),
    }


def _average(means: Mapping[str, float], wnli: bool) -> float | None:
    try:
        return metrics.average({(name, "validation"): mean for name, mean in means.items()}, wnli)
    except ValueError:  # of a task that is missing
        return None


def report(output: Path, results: Mapping[str, Any]) -> None:
    """Print the table of `summary`."""
    several = len({row["setting"] for row in results["rows"]}) > 1
    rows = []
    for row in results["rows"]:
        setting = [row["setting"] + ("  best" if several and row["best_setting"] else "")] if row["setting"] else []
        values = [row["median"], row["mean"], row["sd"], row["best"]]
        cells = ["-" if value is None else f"{value:.1%}" for value in values]
        rows.append([" ".join([row["task"], *setting]), str(row["n"]), *cells])
    console.table(f"Scores on validation, {output}", ("task", "n", "median", "mean", "sd", "best"), rows)
    for key, which in (("with_wnli", "with"), ("without_wnli", "without")):
        average = results["average"][key]
        if average is not None:
            console.out.print(f"GLUE {which} WNLI: {average:.1%} ({CONVENTION})")
