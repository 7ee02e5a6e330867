"""A run's folder: recipe.yaml, run.json, metrics.jsonl, checkpoints/, final/."""

import contextlib
import functools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sqzb import __version__, console
from sqzb.errors import RecipeError, UserError
from sqzb.files import ASIDE, naming, parse_json_object, read_json_object, whole_file, write_json
from sqzb.hub import taken
from sqzb.recipe import (
    REMOVED,
    FinetuneRecipe,
    PretrainRecipe,
    Recipe,
    Section,
    dump_recipe,
    load_recipe,
)
from sqzb.training.trackers import Trackers

METRICS, RECIPE, RUN, CHECKPOINTS = "metrics.jsonl", "recipe.yaml", "run.json", "checkpoints"
KNOWN = "data.json"  # the facts about the user's own data
EVALUATION = "evaluation.json"  # figures of each label, of the model in final/
EVALUATED = {"heldout_mlm_loss", "validation_score"}
UNREADABLE = math.inf  # in place of a line's step
LAST_BYTES = 2**16  # of metrics.jsonl, which hold its last line
PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "accelerate", "tokenizers", "safetensors", "numpy")


class RunLog:
    """The writer of a run's folder.

    write: whether this process writes; only the first process of a run does.
    steps: number of steps of the whole run, for those who follow it.
    trackers: names of programs that get the figures too.
    """

    def __init__(
        self,
        folder: Path,
        write: bool,
        steps: int | None = None,
        trackers: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._trackers = Trackers(trackers if write else (), folder)
        self._write, self._steps = write, steps
        self._before, self._started = 0.0, time.monotonic()

    def start(
        self,
        recipe: Section,
        seed: int,
        device: str,
        kernels: bool,
        processes: int,
        peak_flops: float,
        step: int = 0,
    ) -> None:
        """Write recipe.yaml and run.json; call it once the inputs have been checked.

        kernels: whether the model runs model/kernels/.
        peak_flops: FLOP/s of the devices of all processes.
        step: number of finished steps; run.json keeps the steps at which the run was resumed.
        """
        if not self._write:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        resumes = [mark for mark in resumes_of(self.folder) if mark["step"] <= step]
        # A resumed process takes less from the Hub, because its checkpoint has the weights.
        on_hub = (commits(self.folder) if step else {}) | taken()
        if step:
            resumes.append({"step": step, "started": started})
        with whole_file(self.folder / RECIPE) as aside:
            aside.write_text(dump_recipe(recipe), encoding="utf-8")
        write_json(
            self.folder / RUN,
            {
                "command": sys.argv,
                "started": started,
                "resumes": resumes,
                "steps": self._steps,
                "seed": seed,
                "git": git_state(PACKAGE),
                "versions": _versions(),
                "hub": on_hub,
                "hardware": {
                    "device": device,
                    "device_name": _device_name(device),
                    "kernels": kernels,
                    "processes": processes,
                    "peak_flops": round(peak_flops),
                    "cpus": os.cpu_count(),
                    "machine": platform.machine(),
                },
            },
        )

    def log(self, step: int, **figures: Any) -> None:
        """Append an object to metrics.jsonl, with null for figures that are not finite.

        Its `time` is the seconds since the run began, without pauses and steps that were repeated.
        """
        if not self._write:
            return
        for name, figure in figures.items():
            if isinstance(figure, float) and not math.isfinite(figure):
                figures[name] = None
        path = self.folder / METRICS
        with naming(path), path.open("a", encoding="utf-8") as file:
            seconds = round(self._before + time.monotonic() - self._started, 1)
            line = {"step": step, "time": seconds} | figures
            file.write(json.dumps(line) + "\n")
        self._trackers.log(line)

    def exists(self) -> bool:
        """Return whether metrics.jsonl exists."""
        return (self.folder / METRICS).exists()

    def evaluated(self, step: int) -> bool:
        """Return whether the log has an evaluation of the step."""
        return any(line["step"] == step for line in evaluations(self.folder))

    def forget_after(self, step: int) -> None:
        """Remove lines of steps that a resumed run will repeat, and an incomplete last line.

        Other lines that cannot be read are removed with a warning.
        """
        if not self._write:
            return
        path = self.folder / METRICS
        *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
        damaged = [number for number, line in enumerate(lines, 1) if _step(line) == UNREADABLE]
        if damaged:
            console.warn(
                f"{path}: {console.counted(len(damaged), 'line')} cannot be read, the first is "
                f"line {damaged[0]:,}; removed."
            )
        kept = [line for line in (*lines, last) if _step(line) <= step]
        if path.exists():
            with whole_file(path) as aside:
                aside.write_bytes(b"".join(line + b"\n" for line in kept))
            self._before = (last_logged(self.folder) or {}).get("time", 0.0)
        dropped = [line for line in (*lines, last) if step < _step(line) < UNREADABLE]
        self._trackers.begin(step, map(parse_json_object, dropped))

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        self._trackers.close()


def last_logged(folder: Path) -> dict[str, Any] | None:
    """Return the last whole line of the run's metrics.jsonl, or None if there is none."""
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    if not lines or _step(lines[-1]) == UNREADABLE:
        return None
    line: dict[str, Any] = json.loads(lines[-1])
    return line


def _device_name(device: str) -> str | None:
    """Return CUDA's name of a device such as cuda:0; None for other devices."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of sqzb, Python and the libraries that numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"sqzb": __version__, "python": platform.python_version()} | libraries


def git_state(package: Path) -> dict[str, Any] | None:
    """Return the commit of the package's own checkout, and whether the package has changes.

    None if the package is not in the top folder of a checkout, or if git is not available.
    """
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "status", "--porcelain=v2", "--branch", "--", package.name]
    # Variables such as GIT_DIR would name another repository: a git hook sets them.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        status = subprocess.run(
            command,
            cwd=package.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    headers = [line for line in status.stdout.splitlines() if line.startswith("#")]
    commits = [line.split()[-1] for line in headers if line.startswith("# branch.oid ")]
    changes = len(status.stdout.splitlines()) - len(headers)
    return {"commit": commits[0], "changed": changes > 0} if commits else None


def resumes_of(folder: Path) -> list[dict[str, Any]]:
    """Return the steps at which the run was resumed, each with its time; empty if unknown."""
    try:
        known = json.loads((folder / RUN).read_text(encoding="utf-8"))["resumes"]
        return [mark for mark in known if isinstance(mark["step"], int)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def commits(folder: Path) -> dict[str, str]:
    """Return the commits of what the run took from the Hub, by `owner/name`; empty if unknown."""
    try:
        known = read_json_object(folder / RUN)["hub"]
        return {name: commit for name, commit in known.items() if isinstance(commit, str)}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations in the run's metrics.jsonl, in its order.

    The last evaluation of a finished run is that of final/. Lines that cannot be read are left out.
    """
    path = folder / METRICS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    objects = [parse_json_object(line) for line in lines if _step(line) < UNREADABLE]
    return [figures for figures in objects if EVALUATED & figures.keys()]


def final_figures(folder: Path) -> dict[str, float] | None:
    """Return the figures of a finished finetuning run by metric, with `score`; else None.

    The line of these figures is written after final/ and is the last: a run with another line
    behind it is still going on.
    """
    path = folder / METRICS
    if not (folder / "final").is_dir() or not path.is_file():
        return None
    last = path.read_bytes().removesuffix(b"\n").rpartition(b"\n")[2]
    if _step(last) == UNREADABLE:
        return None
    figures = {
        key.removeprefix("validation_"): value
        for key, value in parse_json_object(last).items()
        if key.startswith("validation_")
    }
    return figures if isinstance(figures.get("score"), int | float) else None


def folders_of(path: Path) -> tuple[Path, ...]:
    """Return the folders that may hold the files of the run at `path`, or of the run of a model.

    path: a run, or its final/ or one of its checkpoints.
    """
    absolute = path.absolute()  # because the path may be "."
    if absolute.name == "final":
        return path, absolute.parent
    if absolute.parent.name == CHECKPOINTS:
        return path, absolute.parents[1]
    return (path,)


def places_of(path: str, run: Path, output: str | None) -> list[Path]:
    """Return where a path of a run's recipe may lead: from here, and from where the run started.

    output: the run's folder in its recipe; the run may have been moved with all that is beside it.
    """
    places = [Path(path)]
    absolute, parts = Path(os.path.abspath(run)), Path(output or "").parts
    n = len(parts)
    if n and not Path(output or "").is_absolute() and absolute.parts[-n:] == parts:
        places.append(absolute.parents[n - 1] / path)
    return places


def recipe_of(path: str, kind: type[Recipe]) -> Recipe | None:
    """Return the recipe of the run at `path`, or whose model `path` is, if it is of this kind.

    Keys of older versions that no longer exist are ignored, because the model can still be used.

    Raises:
        UserError: the recipe is damaged, so that the model would be used with other settings.
    """
    for folder in folders_of(Path(path)):
        if not (folder / RECIPE).exists():
            continue
        try:
            return _run_recipe(kind, folder / RECIPE)
        except RecipeError as error:
            # Beside a model that is no run, recipe.yaml may be a file of the user's.
            if (folder / RUN).exists() and not _is_recipe_of_another_kind(kind, folder / RECIPE):
                raise UserError(
                    f"{error}\nThe run's settings are not known without it: restore it from a "
                    "copy of the run."
                ) from error
    return None


def _run_recipe(kind: type[Recipe], path: Path) -> Recipe:
    removed = [f"{key}=0" for key in sorted(REMOVED)] if kind is FinetuneRecipe else []
    return load_recipe(kind, path, removed, stored=True)


def _is_recipe_of_another_kind(kind: type[Recipe], path: Path) -> bool:
    for other in (PretrainRecipe, FinetuneRecipe):
        with contextlib.suppress(RecipeError):
            _run_recipe(other, path)
            return other is not kind
    return False


def refuse_used(folder: Path, how_to_resume: str = "") -> None:
    """Raise an error if the folder is not empty.

    A file that a killed run had not finished, such as its first one, does not count.

    Raises:
        UserError: the folder holds files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder. Give another --output.")
    if folder.exists() and any(path.suffix != ASIDE for path in folder.iterdir()):
        raise UserError(
            f"The folder {folder} is not empty. Give another --output{how_to_resume}, or remove "
            "the folder."
        )


def _step(line: bytes) -> float:
    """Return the step of a line of metrics.jsonl; UNREADABLE if the line is none."""
    try:
        step = parse_json_object(line).get("step")
    except ValueError:
        return UNREADABLE
    return step if isinstance(step, int) and not isinstance(step, bool) else UNREADABLE
