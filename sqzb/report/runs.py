"""What a run folder tells: recipe, curves, evaluations, and the hours that the run took."""

import math
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from sqzb import console
from sqzb.corpus.manifest import UNITS
from sqzb.corpus.store import MANIFEST
from sqzb.errors import UserError
from sqzb.files import parse_json_object
from sqzb.plan.hardware import Device, by_cuda_name
from sqzb.recipe import flat
from sqzb.recipe.commands import command_of
from sqzb.recipe.strict_yaml import parse
from sqzb.training.run_folder import (
    EVALUATED,
    EVALUATION,
    METRICS,
    RECIPE,
    RUN,
    places_of,
    resumes_of,
)

DEPTH = 4  # folders below a given one in which runs are searched: STAGE/TASK/SETTINGS
MOST_NATS = 100.0
OF_CORPUS = (UNITS, MANIFEST)  # files that a corpus has from its beginning, or at its end
RESUMED, SKIPPED, LEFT_OUT, ROLLED_BACK = "resumed", "skipped", "left out", "rolled back"
PRETRAIN, FINETUNE = "pretrain", "finetune"


class Event(NamedTuple):
    """A mark on the axis of a run's steps; `kind` is RESUMED, SKIPPED, LEFT_OUT or ROLLED_BACK."""

    step: int
    kind: str


class Series(NamedTuple):
    """A figure by step; both (logged steps), the steps in rising order."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass
class RunRecord:
    """A run as its folder tells it; whatever is missing there is empty here.

    name: short name of the run, unique in the report.
    sweep: folder under which the run was found; None if the run itself was given.
    kind: PRETRAIN or FINETUNE.
    recipe: the resolved recipe, by dotted keys; values: the same, section in section.
    about: the content of run.json.
    training: figures of the training steps, by name.
    evaluations: lines of the evaluations, in the order of the log.
    details: the content of evaluation.json.
    unreadable: number of lines of metrics.jsonl that cannot be read.
    baseline: held-out loss of a model that knows only token frequencies, in nats.
    """

    folder: Path
    sweep: Path | None = None
    name: str = ""
    kind: str = PRETRAIN
    recipe: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Series] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    unreadable: int = 0
    last_step: int = 0
    baseline: float | None = None

    @property
    def data(self) -> str:
        """The name of the task, of the own data, or of the corpus."""
        if self.kind == PRETRAIN:
            return Path(str(self.recipe.get("corpus") or "")).name
        task = self.details.get("task") or self.recipe.get("task")
        files = self.recipe.get("data.train")
        if not task and isinstance(files, list) and files:
            task = Path(str(files[0])).name.partition(".")[0]
        return str(task or "")

    @property
    def steps(self) -> int | None:
        """The number of steps of the whole run; None if nothing tells it."""
        planned = number(self.about.get("steps"))
        if planned:
            return int(planned)
        planned = number(self.recipe.get("steps"))
        if self.kind == PRETRAIN:
            return int(planned) if planned else None
        epochs = number(self.recipe.get("epochs"))
        for line in reversed(self.evaluations):
            epoch = number(line.get("epoch"))
            if epochs and epoch:
                return round(float(line["step"]) / epoch * epochs)
        return None

    @property
    def finished(self) -> bool:
        """Whether final/ is that of the last step, or the folder is a final/ that was moved."""
        if (self.folder / "config.json").is_file():
            return True
        if not (self.folder / "final").is_dir():
            return False
        if self.kind == FINETUNE:
            planned, early = number(self.about.get("steps")), self.recipe.get("early_stopping")
            if planned and self.last_step < planned and early is None:
                return False  # final/ is of a shorter run, which is extended now
            return bool(self.evaluations) and self.evaluations[-1]["step"] == self.last_step
        return self.steps is None or self.last_step >= self.steps

    @property
    def state(self) -> str:
        """The state of the run in a few words."""
        if self.finished:
            return "finished"
        if not self.last_step:
            return "no step logged"
        of = f" of {self.steps:,}" if self.steps else ""
        return f"unfinished: step {self.last_step:,}{of}"

    @property
    def seconds(self) -> float | None:
        """Duration of the run; without a `time` in the log, that of its training steps alone."""
        times = self.training.get("time")
        if times is not None:
            return float(times.values.max())
        tokens, speeds = self.training.get("tokens"), self.training.get("tokens_per_second")
        if tokens is None or speeds is None or not np.array_equal(tokens.steps, speeds.steps):
            return None
        moved = np.maximum(0, np.diff(tokens.values, prepend=0))
        seconds = np.divide(moved, speeds.values, where=speeds.values > 0, out=np.zeros_like(moved))
        return float(seconds.sum()) or None

    @property
    def devices(self) -> tuple[Device | None, int]:
        """The device as the table of hardware knows it, if it does, and the number of devices."""
        hardware = self.about.get("hardware")
        hardware = hardware if isinstance(hardware, dict) else {}
        name, processes = hardware.get("device_name"), number(hardware.get("processes"))
        device = by_cuda_name(name) if isinstance(name, str) else None
        return device, int(processes or 1)

    @property
    def tokens(self) -> float | None:
        """Tokens of the run, without padding."""
        counted = self.training.get("tokens")
        return None if counted is None else float(counted.values[-1])

    @property
    def tokens_per_second(self) -> float | None:
        """The median of the logged speeds."""
        speeds = self.training.get("tokens_per_second")
        return None if speeds is None else float(np.median(speeds.values))

    @property
    def final_figures(self) -> dict[str, float]:
        """The numbers of the last evaluation, without `heldout_` and `validation_`."""
        figures = {}
        for name, value in (self.evaluations[-1] if self.evaluations else {}).items():
            for prefix in ("heldout_", "validation_"):
                figure = number(value)
                if name.startswith(prefix) and figure is not None:
                    figures[name.removeprefix(prefix)] = figure
        return figures


def number(value: Any) -> float | None:
    """Return a value of a JSON file as a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def read_runs(paths: Sequence[str]) -> list[RunRecord]:
    """Return the runs at the paths, and those below paths that are folders of runs.

    Raises:
        UserError: a path is no folder, or there is no run in it.
    """
    records: dict[str, RunRecord] = {}
    for path in paths:
        folder = Path(path)
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise UserError(f"{path} {problem}. Give the folder of a run or of a sweep.")
        if is_run(folder.absolute().parent) and not _is_own_run(folder):
            folder = folder.absolute().parent  # final/ was given
        below = [folder] if is_run(folder) else list(runs_below(folder))
        if not below:
            raise UserError(
                f"{path} is no run and has none below it. Give the folder of a run or of a sweep."
            )
        for run in below:
            sweep = None if run == folder else folder
            records.setdefault(os.path.abspath(run), RunRecord(run, sweep))
    runs = list(records.values())
    _name(runs)
    for record in runs:
        _read(record)
    return runs


def is_run(folder: Path) -> bool:
    """Return whether the folder holds a run. A corpus has a recipe too, and its own files."""
    if any((folder / name).is_file() for name in OF_CORPUS):
        return False
    return any((folder / name).is_file() for name in (RECIPE, METRICS))


def _is_own_run(folder: Path) -> bool:
    return is_run(folder) and folder.name != "final"


def runs_below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield the runs in the folders below `folder`, to this depth."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return
    for path in inside:
        if is_run(path):
            yield path
        elif depth > 1 and not path.is_symlink():
            yield from runs_below(path, depth - 1)


def _name(records: Sequence[RunRecord]) -> None:
    """Name each run by the last parts of its path, as many as tell it from the others.

    A run of a sweep is named by its whole path in the sweep: MRPC's seed 1, not only seed 1.
    """
    paths = [Path(os.path.abspath(record.folder)).parts for record in records]
    for record, parts in zip(records, paths, strict=True):
        n = 1
        if record.sweep is not None:
            n = len(record.folder.relative_to(record.sweep).parts)
        while n < len(parts) and sum(other[-n:] == parts[-n:] for other in paths) > 1:
            n += 1
        record.name = "/".join(parts[-n:])


def _read(record: RunRecord) -> None:
    folder = record.folder
    record.recipe_text, record.values = _recipe(folder / RECIPE)
    record.recipe = flat(record.values)
    record.about = json_object(_content(folder / RUN))
    record.details = json_object(_content(folder / EVALUATION))
    _read_metrics(record)
    if record.values:
        record.kind = FINETUNE if command_of(record.values) == FINETUNE else PRETRAIN
    elif any("validation_score" in line for line in record.evaluations):
        record.kind = FINETUNE
    marks = (mark["step"] for mark in resumes_of(folder))
    record.events = sorted({*record.events, *(Event(step, RESUMED) for step in marks)})
    for path in places(record, record.recipe.get("corpus")):
        baseline = number(json_object(_content(path / MANIFEST)).get("heldout_unigram_nats"))
        # Another value than this is damaged: a vocabulary of any size has less.
        if baseline is not None and 0 <= baseline < MOST_NATS:
            record.baseline = baseline


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text and the values of a recipe, of whatever version; warn if it is damaged."""
    text = _content(path).decode("utf-8", "replace")
    try:
        values = parse(text)
    except yaml.YAMLError:
        values = None
    if isinstance(values, dict) and all(isinstance(key, str) for key in values):
        return text, values
    console.warn(f"{path} is missing or damaged: the report has no recipe of this run.")
    return text, {}


def _read_metrics(record: RunRecord) -> None:
    """Read metrics.jsonl line by line: a long run has hundreds of thousands of them.

    Where steps come again, the later lines count. A run's own log has no such steps, but a file
    that was copied while the run was resumed may have.
    """
    columns: dict[str, tuple[array[float], array[float]]] = {}
    for line in _log_lines(record):
        step = line["step"]
        record.last_step = step
        if EVALUATED & line.keys():
            record.evaluations.append(line)
        elif "rolled_back_from" in line:
            record.events.append(Event(step, ROLLED_BACK))
        elif line.get("left_out"):
            record.events.append(Event(step, LEFT_OUT))
        else:
            if line.get("skipped"):
                record.events.append(Event(step, SKIPPED))
            for name, value in line.items():
                figure = number(value)
                if figure is not None and name != "step":
                    _append(columns.setdefault(name, (array("d"), array("d"))), step, figure)
    for name, (steps, values) in columns.items():
        record.training[name] = Series(np.array(steps), np.array(values))
    if record.unreadable:
        console.warn(
            f"{record.folder / METRICS}: {console.counted(record.unreadable, 'line')} cannot be "
            "read; left out."
        )


def _log_lines(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield the lines of metrics.jsonl that have a step, and count the others."""
    try:
        with (record.folder / METRICS).open("rb") as opened:
            for content in opened:
                line = json_object(content)
                step = line.get("step")
                if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53:
                    yield line
                else:
                    record.unreadable += bool(content.strip())
    except OSError:
        return


def _append(column: "tuple[array[float], array[float]]", step: int, figure: float) -> None:
    steps, values = column
    while steps and steps[-1] >= step:
        steps.pop()
        values.pop()
    steps.append(step)
    values.append(figure)


def places(record: RunRecord, path: Any) -> list[Path]:
    """Return where a path of a recipe may lead: from here, and from where the run was started."""
    if not isinstance(path, str) or not path:
        return []
    return places_of(path, record.folder, str(record.recipe.get("output") or ""))


def json_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`; empty if there is none."""
    try:
        return parse_json_object(content)
    except ValueError:
        return {}


def _content(path: Path) -> bytes:
    """Return a file's bytes; nothing if it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return b""


def starts_from(record: RunRecord, others: Sequence[RunRecord]) -> RunRecord | None:
    """Return the run whose weights a run started from, if it is among the others."""
    key = "start_from" if record.kind == PRETRAIN else "model"
    wanted: set[str] = set()
    for path in places(record, record.recipe.get(key)):
        wanted.add(os.path.realpath(path))
        if path.name == "final":
            wanted.add(os.path.realpath(path.parent))
    for other in others:
        if other is not record and os.path.realpath(other.folder) in wanted:
            return other
    return None
