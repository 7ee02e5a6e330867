"""The tables of a sweep: scores by task, stage and setting, and GLUE's averages."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqzb import console
from sqzb.data.metrics import LOWER_IS_BETTER
from sqzb.finetuning.sweep.plan import Run
from sqzb.glue.average import average
from sqzb.training.run_folder import final_figures

CONVENTION = "the mean over tasks of each task's mean metric, MNLI's two halves as one task"
AVERAGES = {"with_wnli": "GLUE with WNLI", "without_wnli": "GLUE without WNLI"}


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of the finished runs: each run, rows, and GLUE's averages.

    A row has the scores of the seeds of a task, stage and setting. The best setting of a task in a
    stage has the highest mean. The averages are of the best settings' means, and null if a task is
    missing. With stages, each stage has its own means and averages. An
    error as `best_metric` counts negatively, and `score_is_minus` names it.
    """
    finished = []
    for run in runs:
        figures = final_figures(run.folder)
        if figures is not None:
            finished.append((run, figures))
    tasks = list(dict.fromkeys(run.recipe.data_name for run in runs))

    def by_task(run_and_figures: tuple[Run, Any]) -> int:
        return tasks.index(run_and_figures[0].recipe.data_name)

    scores: dict[tuple[str, str, str], list[float]] = {}
    for run, figures in sorted(finished, key=by_task):
        scores.setdefault((str(run.recipe.data_name), run.stage, run.setting), []).append(
            figures["score"]
        )
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
    errors = sorted({str(run.recipe.best_metric) for run in runs} & set(LOWER_IS_BETTER))
    return {
        **({"score_is_minus": errors} if errors else {}),
        "runs": [
            {
                "task": run.recipe.data_name,
                "stage": run.stage,
                "setting": run.setting,
                "seed": run.recipe.seed,
            }
            | {"folder": str(run.folder)}
            | figures
            for run, figures in finished
        ],
        "rows": rows,
        **({"average": stages[""]["average"]} if "" in stages else {"stages": stages}),
    }


def spread(scores: Sequence[float]) -> dict[str, Any]:
    """Return n, median, mean, sd and the best of the scores.

    The sd has n - 1 in its denominator, and is None for a single score.
    """
    return {
        "n": len(scores),
        "median": statistics.median(scores),
        "mean": statistics.fmean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "best": max(scores),
    }


def _averages(means: Mapping[str, float]) -> dict[str, Any]:
    return {
        "of": CONVENTION,
        "with_wnli": _average(means, True),
        "without_wnli": _average(means, False),
    }


def _average(means: Mapping[str, float], wnli: bool) -> float | None:
    try:
        return average({(name, "validation"): mean for name, mean in means.items()}, wnli)
    except ValueError:  # of a task that is missing
        return None


def report(output: object, results: Mapping[str, Any]) -> None:
    """Print the tables of `summary`."""
    errors = results.get("score_is_minus", [])
    shown = _number if errors else _percent
    title = f"Scores on validation, {output}"
    if errors:
        title += f" (minus {' and '.join(errors)}: less is better)"
    rows = []
    for row in results["rows"]:
        several = (
            sum(
                (row["task"], row["stage"]) == (other["task"], other["stage"])
                for other in results["rows"]
            )
            > 1
        )
        name = " ".join(filter(None, (row["task"], row["stage"], row["setting"])))
        values = [row["median"], row["mean"], row["sd"], row["best"]]
        rows.append(
            [
                name + "  best" * (several and row["best_setting"]),
                str(row["n"]),
                *map(shown, values),
            ]
        )
    console.table(title, ("task", "n", "median", "mean", "sd", "best"), rows)
    stages = results.get("stages", {})
    if stages:
        _report_stages(stages, list(dict.fromkeys(row["task"] for row in results["rows"])), shown)
    for key, name in AVERAGES.items():
        average = None if stages else results["average"][key]
        if average is not None:
            console.out.print(f"{name}: {average:.1%} ({CONVENTION})")


def _report_stages(
    stages: Mapping[str, Any], tasks: Sequence[str], shown: Callable[[float | None], str]
) -> None:
    """Print the stages side by side, or below one another if there are more stages than tasks."""
    rows: list[list[str]] = []
    for name in tasks:
        means = [stage["means"].get(name) for stage in stages.values()]
        rows.append([name, *map(shown, means)])
    for key, name in AVERAGES.items():
        averages = [stage["average"][key] for stage in stages.values()]
        if any(average is not None for average in averages):
            rows.append([name, *map(_percent, averages)])
    table = [["task", *stages], *rows]
    if len(stages) > len(rows):
        table = [list(column) for column in zip(*table, strict=True)]
        table[0][0] = "stage"
    console.table("Means by stage, each of its best setting", table[0], table[1:])
    if len(rows) > len(tasks):
        console.out.print(f"GLUE: {CONVENTION}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
