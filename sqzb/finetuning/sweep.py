"""Many runs of finetune, over stages, tasks, settings and seeds, each an ordinary run in a process of its own; and
their tables.

Nothing but the runs' own folders says how far a sweep has come.
"""

import fcntl
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sqzb import console
from sqzb.errors import Stopped, UserError
from sqzb.files import locked, whole_file, write_json
from sqzb.finetuning.data import open_data
from sqzb.glue.average import average
from sqzb.glue.tasks import task
from sqzb.hub import local_folder
from sqzb.recipe import ALL, FinetuneRecipe, SweepRecipe, dump_recipe, flat, load_recipe
from sqzb.training.guards import SIGNALS, Signals
from sqzb.training.run_folder import RECIPE, final_figures, refuse_used

OUTPUT, RESULTS = "runs/glue", "results.json"
CONVENTION = "the mean over tasks of each task's mean metric, MNLI's two halves as one task"
AVERAGES = {"with_wnli": "GLUE with WNLI", "without_wnli": "GLUE without WNLI"}
LAST_LINES = 3  # of a failed run's output, to show
WAIT = 0.1  # seconds between two looks at the processes


class Run(NamedTuple):
    """One run of a sweep.

    stage    the name of its stage, empty where there are none
    setting  its values of the grid but the seed, as lr=1e-05,batch=16, or nothing
    needs    the folders of other runs, its teacher and the one that it starts from, which its recipe has too
    same     the folder of a run in an earlier stage that is the very same, which is not run again: this one's folder
             is a link to it
    """

    stage: str
    setting: str
    recipe: FinetuneRecipe
    needs: tuple[Path, ...] = ()
    same: Path | None = None

    @property
    def folder(self) -> Path:
        return Path(self.recipe.output or "")

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.stage, self.recipe.task, self.folder.name)))

    def link(self) -> None:
        """Make the link to the same run, unless something is there."""
        if self.same is not None and not os.path.lexists(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.symlink_to(os.path.relpath(self.same, self.folder.parent))

    def beside(self, suffix: str) -> Path:
        """A file of the sweep's about the run, whose own folder must be empty when it begins."""
        return self.folder.with_name(self.folder.name + suffix)


def is_sweep(recipe: SweepRecipe) -> bool:
    """Whether the recipe is for more than one plain run: by stages, several tasks, or a grid, of whatever size."""
    return bool(recipe.stages or recipe.grid()) or recipe.task == ALL or "," in (recipe.task or "")


def sweep(recipe: SweepRecipe, jobs: int = 1) -> dict[str, Any]:
    """Run all that is not finished, `jobs` at once, each run behind those that it needs, then print the tables and
    write them to OUTPUT/results.json; its content.

    Each run has one of the GPUs that are visible, or a share of the cores. Raises UserError before anything runs when
    the sweep cannot be as the recipe has it, and at the end, behind the tables, when runs have failed; Stopped when a
    signal came, once the runs that were at work have saved themselves.
    """
    if "WORLD_SIZE" in os.environ:
        raise UserError("A sweep starts processes of its own. Start it without accelerate or torchrun, with --jobs.")
    output = Path(recipe.output or OUTPUT)
    runs = plan(recipe, output)
    _check(output, runs)
    _check_input(runs)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output) as ours:
        if not ours:
            raise UserError(f"Another sweep is at work in {output}. Wait for it, or give another --output.")
        for run in runs:
            run.link()
        failed = _run_all(runs, jobs)
        results = summary(runs) | {"failed": [run.name for run in failed]}
        write_json(output / RESULTS, results)
    report(output, results)
    if failed:
        listed = "".join(f"\n  {run.name}: {said}" for run, said in failed.items())
        in_vain = len(_behind(failed, {run.folder for run in failed}))
        others = f", and {in_vain} that need these were not run" if in_vain else ""
        raise UserError(
            f"{len(failed) - in_vain} of {len(runs)} runs failed{others}:{listed}\nThe same command tries these again."
        )
    return results


def plan(recipe: SweepRecipe, output: Path) -> list[Run]:
    """The sweep's runs, each behind those that it needs, whose folders are `output`/STAGE/TASK/SETTINGS, without
    STAGE where there are none; UserError when a task is none of GLUE's."""
    if not recipe.names():
        raise UserError("There is no task: give --task, such as --task mrpc,rte or --task all.")
    for name in (*recipe.names(), *recipe.tasks):
        task(name)
    runs: dict[tuple[str, str], list[Run]] = {}
    for stage, part in recipe.in_order().items():
        for name in recipe.tasks_of(stage):
            taught_by = runs[part.teacher, name] if isinstance(part.teacher, str) else []
            starts = runs[stage, part.first] if part.first not in (None, name) else []
            made = _runs_of(recipe, stage, name, output, taught_by, starts)
            earlier = [run for those in runs.values() for run in those]
            runs[stage, name] = [_once(run, earlier) for run in made]
    return [run for those in runs.values() for run in those]


def _once(run: Run, earlier: Iterable[Run]) -> Run:
    """The run, not to be made again where an earlier one is the same but for its place: MNLI with a teacher, which is a
    task of one stage and what another begins with."""
    for other in earlier:
        if other.recipe.model_copy(update={"output": run.recipe.output}) == run.recipe:
            return run._replace(needs=(other.folder,), same=other.folder)
    return run


def _runs_of(
    recipe: SweepRecipe, stage: str, name: str, output: Path, taught_by: Sequence[Run], starts: Sequence[Run]
) -> list[Run]:
    """Of a task in a stage. taught_by: the teacher's runs; starts: where there are such, for each run the one that it
    starts from, which has the same place in the grid."""
    keys = [] if stage in recipe.teachers() else [key for key in recipe.grid() if key != "seed"]
    given = recipe.stages[stage].teacher if stage else None
    teacher = given[name] if isinstance(given, dict) else [str(run.folder) for run in taught_by]
    runs = []
    for place, one in enumerate(recipe.recipes(name, stage)):
        setting = ",".join(f"{key}={_written(attrgetter(key)(one))}" for key in keys)
        folder = output / stage / name / ",".join(filter(None, (setting, f"seed={one.seed}")))
        changes: dict[str, Any] = {"output": str(folder)}
        if teacher:
            changes["distillation"] = one.distillation.model_dump() | {"teacher": teacher}
        if starts:
            changes |= {"model": str(starts[place].folder), "from_scratch": False}
        needs = tuple(run.folder for run in (*taught_by, *starts[place : place + 1]))
        runs.append(Run(stage, setting, FinetuneRecipe.model_validate(one.model_dump() | changes), needs))
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
        before = flat(load_recipe(FinetuneRecipe, run.folder / RECIPE).model_dump())
        problems += [
            f"{run.folder}: {key} was {before[key]}, is {value}"
            for key, value in flat(run.recipe.model_dump()).items()
            if value != before[key] and not {key, key.split(".")[0]} & FinetuneRecipe.may_change
        ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(
            f"The sweep in {output} has runs of another recipe:{listed}\nPut these back, or give another --output."
        )


def _check_input(runs: Sequence[Run]) -> None:
    """UserError for a model that is not there, and with all of them for files of data that are not there or not right,
    as far as runs that are not finished need them. The Hub's models are downloaded once, before several would do it."""
    waiting = [run for run in runs if final_figures(run.folder) is None]
    made = {folder for run in waiting for folder in run.needs}
    for path in dict.fromkeys(path for run in waiting for path in (run.recipe.model, *run.recipe.distillation.teacher)):
        if Path(path) not in made:
            local_folder(path)
    problems = []
    sets = {run.recipe.task: open_data(run.recipe) for run in waiting}
    for data in sets.values():
        for split in data.labelled_splits if data.on_disk else ():
            try:
                data.read(split)
            except UserError as error:
                problems.append(f"\n  {error}")
    if problems:
        raise UserError(f"The sweep cannot begin, for data is wrong:{''.join(dict.fromkeys(problems))}")


# The processes


def _run_all(runs: Sequence[Run], jobs: int) -> dict[Run, str]:
    """Run what is not finished; of each run that failed, how. Stopped when a signal asked for it."""
    waiting = [run for run in runs if final_figures(run.folder) is None]
    free = _environments(jobs) if waiting else []
    at_work: dict[Run, tuple[subprocess.Popen[bytes], dict[str, str]]] = {}
    failed: dict[Run, str] = {}
    signals, told = Signals(), False
    with signals.caught(), console.bar("Sweep", len(runs), len(runs) - len(waiting)) as bar:
        try:
            while at_work or (waiting and not signals.received):
                # A killed sweep may have left runs at work, which end by themselves.
                waiting = [run for run in waiting if final_figures(run.folder) is None]
                in_vain = _behind(waiting, {run.folder for run in failed})
                failed |= {run: f"not run, for it needs {' and '.join(needs)}" for run, needs in in_vain.items()}
                undone = {run.folder for run in (*waiting, *at_work)}
                waiting = [run for run in waiting if run not in in_vain]
                ready = [run for run in waiting if undone.isdisjoint(run.needs)]
                for run in ready if free and not signals.received else ():
                    if free and (process := _start(run, free[0])) is not None:
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


def _behind(runs: Iterable[Run], folders: Set[Path]) -> dict[Run, list[str]]:
    """The runs that need one of the folders, with those that they need."""
    needs = {run: [str(folder) for folder in run.needs if folder in folders] for run in runs}
    return {run: needed for run, needed in needs.items() if needed}


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


def _start(run: Run, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
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
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _ended(run: Run, code: int) -> dict[Run, str]:
    """Say how a run ended; where it failed, its exit code and what it said last."""
    found = final_figures(run.folder)
    if code == 0 and found is not None:
        console.out.print(f"{run.name}: {found['score']:.1%}")
        return {}
    lines = run.beside(".log").read_text(encoding="utf-8", errors="replace").splitlines()
    last = "".join(f"\n    {line.strip()}" for line in [line for line in lines if line.strip()][-LAST_LINES:])
    return {run: f"exit code {code}, {run.beside('.log')}{last}"}


# The table


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Of the runs that are finished: each, a row for each task, stage and setting, and GLUE's averages.

    A row is of its seeds' scores. The best setting of a task in a stage is that of the highest mean. The averages, null
    where a task is missing, are of the best settings' means; where there are stages, each has its means and averages.
    """
    finished = [(run, found) for run in runs if (found := final_figures(run.folder)) is not None]
    tasks = list(dict.fromkeys(run.recipe.task for run in runs))
    scores: dict[tuple[str, str, str], list[float]] = {}
    for run, found in sorted(finished, key=lambda one: tasks.index(one[0].recipe.task)):
        scores.setdefault((str(run.recipe.task), run.stage, run.setting), []).append(found["score"])
    rows = [
        {"task": name, "stage": stage, "setting": setting, **spread(values)}
        for (name, stage, setting), values in scores.items()
    ]
    means: dict[str, dict[str, float]] = {run.stage: {} for run in runs}
    for row in rows:
        best = means[row["stage"]]
        best[row["task"]] = max(row["mean"], best.get(row["task"], row["mean"]))
    for row in rows:
        row["best_setting"] = row["mean"] == means[row["stage"]][row["task"]]
    stages = {stage: {"means": best, "average": _averages(best)} for stage, best in means.items()}
    return {
        "runs": [
            {"task": run.recipe.task, "stage": run.stage, "setting": run.setting, "seed": run.recipe.seed}
            | {"folder": str(run.folder)}
            | found
            for run, found in finished
        ],
        "rows": rows,
        **({"average": stages[""]["average"]} if "" in stages else {"stages": stages}),
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


def _averages(means: Mapping[str, float]) -> dict[str, Any]:
    return {"of": CONVENTION, "with_wnli": _average(means, True), "without_wnli": _average(means, False)}


def _average(means: Mapping[str, float], wnli: bool) -> float | None:
    try:
        return average({(name, "validation"): mean for name, mean in means.items()}, wnli)
    except ValueError:  # of a task that is missing
        return None


def report(output: Path, results: Mapping[str, Any]) -> None:
    """Print the tables of `summary`."""
    rows = []
    for row in results["rows"]:
        several = sum((row["task"], row["stage"]) == (other["task"], other["stage"]) for other in results["rows"]) > 1
        name = " ".join(filter(None, (row["task"], row["stage"], row["setting"])))
        values = [row["median"], row["mean"], row["sd"], row["best"]]
        rows.append([name + "  best" * (several and row["best_setting"]), str(row["n"]), *map(_percent, values)])
    console.table(f"Scores on validation, {output}", ("task", "n", "median", "mean", "sd", "best"), rows)
    stages = results.get("stages", {})
    if stages:
        _report_stages(stages, list(dict.fromkeys(row["task"] for row in results["rows"])))
    for key, which in AVERAGES.items():
        average = None if stages else results["average"][key]
        if average is not None:
            console.out.print(f"{which}: {average:.1%} ({CONVENTION})")


def _report_stages(stages: Mapping[str, Any], tasks: Sequence[str]) -> None:
    """Print the stages side by side, or below one another where they are more than the tasks."""
    rows = [[name, *(_percent(stage["means"].get(name)) for stage in stages.values())] for name in tasks]
    for key, which in AVERAGES.items():
        averages = [stage["average"][key] for stage in stages.values()]
        if any(average is not None for average in averages):
            rows.append([which, *map(_percent, averages)])
    table = [["task", *stages], *rows]
    if len(stages) > len(rows):
        table = [list(column) for column in zip(*table, strict=True)]
        table[0][0] = "stage"
    console.table("Means by stage, each of its best setting", table[0], table[1:])
    if len(rows) > len(tasks):
        console.out.print(f"GLUE: {CONVENTION}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
