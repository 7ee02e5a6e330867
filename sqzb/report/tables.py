"""Tables of several runs: differences of their recipes, results, scores, hardware."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from sqzb import console
from sqzb.data.metrics import LOWER_IS_BETTER, shown
from sqzb.finetuning.sweep.plan import Run
from sqzb.finetuning.sweep.tables import AVERAGES, summary
from sqzb.plan.hardware import Price
from sqzb.recipe import FinetuneRecipe
from sqzb.report.runs import FINETUNE, PRETRAIN, RunRecord, number, starts_from

NONE = "-"
# Keys that say where a run is and how it was watched, not what it learnt.
ASIDE = ("output",)
NOUNS = {PRETRAIN: "pretraining", FINETUNE: "finetuning"}


class Table(NamedTuple):
    """A table of texts: the first column names its row.

    note: a sentence below the table.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def narrowed(self, most: int) -> "Table":
        """Return the table with its columns as rows if it has over `most` columns of figures."""
        if len(self.header) <= most + 1 or not self.rows:
            return self
        columns = [list(column) for column in zip(self.header, *self.rows, strict=True)]
        return Table(self.title, ["run", *columns[0][1:]], columns[1:], self.note)


def differences(records: Sequence[RunRecord]) -> list[Table]:
    """Return for each kind of run the recipe keys whose values differ, with a column for each run.

    Runs of another kind have other keys, so they are compared among themselves.
    """
    tables = []
    for kind, noun in NOUNS.items():
        runs = [record for record in records if record.kind == kind and record.recipe]
        if len(runs) < 2:
            continue
        keys = dict.fromkeys(key for run in runs for key in run.recipe)
        rows = []
        for key in keys:
            values = [_value(run.recipe, key) for run in runs]
            # A key that a recipe lacks is another version's, or of a model that was not made anew.
            if key not in ASIDE and len(set(values) - {NONE}) > 1:
                rows.append([key, *values])
        title = f"Differences of the {noun} recipes"
        note = "" if rows else f"The {len(runs)} {noun} recipes are equal, except for `output`."
        tables.append(Table(title, ["key", *(run.name for run in runs)], rows, note))
    return tables


def _value(recipe: Mapping[str, Any], key: str) -> str:
    if key not in recipe:
        return NONE
    value = recipe[key]
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def results(records: Sequence[RunRecord], price: float | None = None) -> list[Table]:
    """Return for each kind of run what came of the runs, with a column for each.

    price: of an hour of the hardware, in any currency.
    """
    tables = []
    for kind, noun in NOUNS.items():
        runs = [record for record in records if record.kind == kind]
        if runs:
            tables.append(_results(f"Results of {noun}", runs, records, price))
    return tables


def _results(
    title: str, runs: Sequence[RunRecord], records: Sequence[RunRecord], price: float | None
) -> Table:
    """Return the results of runs of one kind. records: all runs, to name those started from."""
    shown_by_row: dict[str, Callable[[RunRecord], str]] = {
        "data": lambda run: run.data or NONE,
        "starts from": lambda run: _start(run, records),
        "state": lambda run: run.state,
        "MLM loss": lambda run: _figure(run, PRETRAIN, "mlm_loss", "{:.3f}"),
        "MLM loss at 15 % masks": lambda run: _figure(run, PRETRAIN, "mlm_loss_15", "{:.3f}"),
        "unigram MLM loss": lambda run: _text(run.baseline, "{:.3f}"),
        "MLM accuracy": lambda run: _figure(run, PRETRAIN, "mlm_accuracy", "{:.1%}"),
        "SOP accuracy": lambda run: _figure(run, PRETRAIN, "sop_accuracy", "{:.1%}"),
        "score": lambda run: _score(run),
        "tokens": lambda run: _text(run.tokens, "{:,.0f}"),
        "tokens/s, median": lambda run: _text(run.tokens_per_second, "{:,.0f}"),
        "time": lambda run: NONE if run.seconds is None else console.duration(run.seconds),
    }
    if price is None:
        shown_by_row["cost, US dollars"] = _list_cost
    else:
        shown_by_row[f"cost at {price:g} an hour"] = lambda run: _cost(run, price)
    shown_by_row |= {
        "skipped steps": lambda run: _count(run, "skipped"),
        "rolled back": lambda run: _count(run, "rolled back"),
        "resumed": lambda run: _count(run, "resumed"),
    }
    rows = []
    for label, value in shown_by_row.items():
        row = [label, *map(value, runs)]
        if set(row[1:]) - {NONE}:
            rows.append(row)
    notes = []
    if any(run.seconds is not None and "time" not in run.training for run in runs):
        notes.append("Time is that of the training steps, from the logged speeds alone.")
    if price is None:
        notes += dict.fromkeys(filter(None, map(_price_note, runs)))
    note = " ".join(notes)
    return Table(title, ["", *(run.name for run in runs)], rows, note)


def _start(run: RunRecord, records: Sequence[RunRecord]) -> str:
    other = starts_from(run, records)
    if other is not None:
        return other.name
    if run.kind == PRETRAIN:
        path = run.recipe.get("start_from")
    else:
        path = None if run.recipe.get("from_scratch") else run.recipe.get("model")
    return str(path) if path else "random weights"


def _figure(run: RunRecord, kind: str, name: str, form: str) -> str:
    return _text(run.final_figures.get(name), form) if run.kind == kind else NONE


def _text(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _score(run: RunRecord) -> str:
    value = run.final_figures.get("score") if run.kind == FINETUNE else None
    return NONE if value is None else shown("score", value, [str(run.recipe.get("best_metric"))])


def _cost(run: RunRecord, price: float) -> str:
    """Return what a run cost. price: of an hour of all its devices."""
    return NONE if run.seconds is None else f"{run.seconds / 3600 * price:,.2f}"


def _list_price(run: RunRecord) -> Price | None:
    """Return the lowest price of the run's device in the table of hardware."""
    device, _ = run.devices
    prices = () if device is None else device.prices
    return min(prices, key=lambda price: price.hour, default=None)


def _list_cost(run: RunRecord) -> str:
    price, (_, number_of_devices) = _list_price(run), run.devices
    return NONE if price is None else _cost(run, price.hour * number_of_devices)


def _price_note(run: RunRecord) -> str:
    price, (device, _) = _list_price(run), run.devices
    if price is None or device is None:
        return ""
    return f"An hour of {device.name} is {price.hour:g} dollars at {price.where}, {price.date}."


def _count(run: RunRecord, kind: str) -> str:
    count = sum(event.kind == kind for event in run.events)
    return f"{count:,}" if count else NONE


def metrics(records: Sequence[RunRecord]) -> list[Table]:
    """Return for each finetuned task or data set the metrics of the last evaluations."""
    by_data: dict[str, list[RunRecord]] = {}
    for run in records:
        if run.kind == FINETUNE and run.final_figures:
            by_data.setdefault(run.data, []).append(run)
    tables = []
    for data, runs in by_data.items():
        names = list(dict.fromkeys(name for run in runs for name in run.final_figures))
        rows = []
        for name in names:
            row = [name]
            for run in runs:
                value = run.final_figures.get(name)
                scored = [str(run.recipe.get("best_metric"))]
                row.append(NONE if value is None else shown(name, value, scored))
            rows.append(row)
        tables.append(Table(data, ["metric", *(run.name for run in runs)], rows))
    return tables


def scores(records: Sequence[RunRecord]) -> Table | None:
    """Return the scores of finetuning runs by task, stage and setting, with spread over the seeds.

    The table is that of the sweep. None if there are no two finished finetuning runs.
    """
    runs, first_of = [], dict[str, str]()
    for record in records:
        if record.kind == FINETUNE and record.finished:
            but_seed = {
                key: record.recipe[key] for key in record.recipe.keys() - {"output", "seed"}
            }
            same = json.dumps(but_seed, default=str, sort_keys=True)
            run = _as_sweep_run(record, first_of.setdefault(same, record.name))
            if run is not None:
                runs.append(run)
    if len(runs) < 2:
        return None
    scored = summary(runs)
    is_error = bool(scored.get("score_is_minus"))
    rows = []
    for row in scored["rows"]:
        # A single run is named like its data more often than not.
        words = dict.fromkeys([row["task"], row["stage"], row["setting"]])
        name = " ".join(filter(None, words))
        values = [row[key] for key in ("median", "mean", "sd", "best")]
        texts = [_text(value, "{:.4g}" if is_error else "{:.1%}") for value in values]
        rows.append([name, str(row["n"]), *texts])
    stages = scored.get("stages") or {"": {"average": scored.get("average", {})}}
    for stage, of_stage in stages.items():
        for key, title in AVERAGES.items():
            average = number(of_stage["average"].get(key))
            if average is not None:
                blank = [NONE] * 2
                rows.append([f"{title} {stage}".strip(), NONE, NONE, f"{average:.1%}", *blank])
    note = "Seeds are runs that differ in nothing but the seed; sd has n - 1 in its denominator."
    if is_error:
        note += f" Scores are minus {' and '.join(scored['score_is_minus'])}: less is better."
    return Table("Validation scores", ["task", "n", "median", "mean", "sd", "best"], rows, note)


def _as_sweep_run(record: RunRecord, setting: str) -> Run | None:
    """Return a run as `summary` takes it, with stage and setting by its place in the sweep.

    setting: that of a run which is in no sweep.
    """
    if "score" not in record.final_figures:
        return None
    try:
        recipe = FinetuneRecipe.model_validate(record.values)
    except ValidationError:  # of another version, with keys that are no more
        return None
    stage = ""
    if record.sweep is not None and record.folder.name.rpartition(",")[2].startswith("seed="):
        parts = record.folder.relative_to(record.sweep).parts
        stage = parts[-3] if len(parts) > 2 else ""
        setting = parts[-1].rpartition(",")[0]
    return Run(stage, setting, recipe.model_copy(update={"output": str(record.folder)}))


def hardware(records: Sequence[RunRecord]) -> Table:
    """Return on what and with which versions the runs were made, with a column for each."""
    rows: dict[str, list[str]] = {}
    for index, run in enumerate(records):
        for label, value in _made(run).items():
            rows.setdefault(label, [NONE] * len(records))[index] = value
    header = ["", *(run.name for run in records)]
    return Table("Hardware and versions", header, [[label, *row] for label, row in rows.items()])


def _made(run: RunRecord) -> dict[str, str]:
    about = run.about
    facts = {"started": str(about.get("started", NONE)).replace("T", " ")}
    for section in ("hardware", "versions", "git"):
        values = about.get(section)
        if isinstance(values, dict):
            for name, value in values.items():
                facts[name] = _plain(name, value)
    precision = run.recipe.get("precision")
    if precision is not None:
        facts["precision"] = str(precision)
    command = about.get("command")
    if isinstance(command, list) and command:
        words = [Path(str(command[0])).name, *map(str, command[1:])]
        facts["command"] = " ".join(words).replace("__main__.py", "sqzb", 1)
    return facts


def _plain(name: str, value: Any) -> str:
    figure = number(value)
    if name == "peak_flops" and figure is not None:
        return f"{figure / 1e12:,.2f} TFLOP/s"
    if name == "commit":
        return str(value)[:12]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def is_error(record: RunRecord) -> bool:
    """Return whether the run's score is an error, counted negatively."""
    return record.recipe.get("best_metric") in LOWER_IS_BETTER
