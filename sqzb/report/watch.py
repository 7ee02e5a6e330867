"""Follow runs that are in progress, from another terminal."""

import contextlib
import os
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from sqzb import console
from sqzb.errors import UserError
from sqzb.finetuning.sweep.run import RESULTS
from sqzb.recipe import flat
from sqzb.recipe.commands import command_of
from sqzb.recipe.strict_yaml import parse
from sqzb.report.curves import thinned
from sqzb.report.runs import (
    FINETUNE,
    PRETRAIN,
    RunRecord,
    Series,
    is_run,
    json_object,
    number,
    runs_below,
)
from sqzb.training.run_folder import EVALUATED, METRICS, RECIPE, RUN

TICK = 2.0  # seconds between two looks at the folders
STILL = 120.0  # seconds without a line, or STILL_LINES times those between two lines, are reported
STILL_LINES = 3
RECENT = 20  # lines of the log whose steps and times give the speed
CARD, MOST_CARD, GAP = 36, 60, 2  # columns of a run's card, and behind it
CARD_LINES = 7
NAME = 28  # columns of a name before a run's only line
LEVELS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII_LEVELS = "_.-=+*%#"

Part = tuple[str, str]  # text and style
YELLOW, GREEN = "yellow", "green"


def watch(paths: Sequence[str], once: bool = False) -> None:
    """Show the runs at and below the paths until all are finished.

    once: show one picture and return.

    Raises:
        UserError: a path is a file.
    """
    for path in paths:
        if Path(path).is_file():
            raise UserError(f"{path} is a file. Give the folder of a run or of a sweep.")
    followed = Followed(paths)
    followed.look()
    if once:
        console.print_picture(followed.draw)
        return
    with contextlib.suppress(KeyboardInterrupt), console.picture(followed.draw) as show:
        show()
        while not followed.finished:
            time.sleep(TICK)
            followed.look()
            show()


class Followed:
    """The runs at and below some paths; a path that does not exist yet is waited for."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [Path(path) for path in dict.fromkeys(paths)]
        self._runs: dict[Path, FollowedRun] = {}
        self._missing: list[Path] = []

    def look(self) -> None:
        """Read what is new in the folders."""
        self._missing = []
        for path in self._paths:
            folders = list(_runs_at(path))
            if not folders or (folders != [path] and not (path / RESULTS).exists()):
                self._missing.append(path)  # a sweep writes its results once all runs have ended
            for folder in folders:
                self._runs.setdefault(folder, FollowedRun(folder)).look()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self._missing and all(run.record.finished for run in self._runs.values())

    def draw(self, width: int, height: int) -> list[list[Part]]:
        """Return the picture's lines: cards side by side, or a line for each run if they are many.

        Of more runs than lines, the finished ones are left out first.
        """
        runs, now = list(self._runs.values()), time.time()
        waiting = [
            [
                (
                    console.fitting([console.padded(str(path), width - 12), "no run yet"], width),
                    YELLOW,
                )
            ]
            for path in self._missing
            if not any(run.folder.is_relative_to(path) for run in runs)
        ]
        side_by_side = max(1, min(len(runs), (width + GAP) // (CARD + GAP)))
        rows = -(-len(runs) // side_by_side)
        if rows * (CARD_LINES + 1) + len(waiting) <= height:
            return _cards(runs, width, side_by_side, now) + waiting
        room = max(1, height - len(waiting) - 1)
        shown = runs
        if len(runs) > room + 1:
            shown = sorted(runs, key=lambda run: run.record.finished)[:room]
        lines = [[run.line(width, now)] for run in runs if run in shown]
        more = len(runs) - len(shown)
        return [*lines, *([[(f"and {more:,} more", "dim")]] if more else []), *waiting]


def _runs_at(path: Path) -> Iterator[Path]:
    if is_run(path):
        yield path
    else:
        yield from runs_below(path)


def _cards(
    runs: Sequence["FollowedRun"], width: int, side_by_side: int, now: float
) -> list[list[Part]]:
    column = min(MOST_CARD, (width - GAP * (side_by_side - 1)) // side_by_side)
    lines: list[list[Part]] = []
    for first in range(0, len(runs), side_by_side):
        cards = [run.card(column, now) for run in runs[first : first + side_by_side]]
        for parts in zip(*cards, strict=True):
            padded = [(console.padded(text, column), style) for text, style in parts]
            spaced = [part for each in padded for part in (each, (" " * GAP, ""))]
            lines.append(spaced[:-1])
        lines.append([("", "")])
    return lines


class FollowedRun:
    """A run whose log is read as it grows.

    record: recipe, last evaluation and last step; the log's other lines are not kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._recipe_seen: int | None = None
        self._begin()

    def _begin(self, inode: int = 0) -> None:
        """Forget the log, which is a new file after a resume or a rollback."""
        self._inode, self._offset = inode, 0
        self.record = RunRecord(self.folder)
        self._recipe_seen = None
        self._steps, self._losses = array("d"), array("d")
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._last: dict[str, Any] = {}
        self._changed: float | None = None  # when the log got its last line

    def look(self) -> None:
        """Read what is new: the log's new lines, and the recipe if it has changed."""
        try:
            with (self.folder / METRICS).open("rb") as log:
                self._read(log)
        except OSError:
            pass  # there is no log yet
        self._read_recipe()

    def _read(self, log: IO[bytes]) -> None:
        about = os.fstat(log.fileno())
        if about.st_ino != self._inode or about.st_size < self._offset:
            self._begin(about.st_ino)
        self._changed = about.st_mtime
        log.seek(self._offset)
        for content in log:
            if not content.endswith(b"\n"):
                break  # the run is writing this line
            self._offset += len(content)
            line = json_object(content)
            step = line.get("step")
            if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53:
                self._add(step, line)

    def _add(self, step: int, line: dict[str, Any]) -> None:
        self.record.last_step = step
        moment, loss = number(line.get("time")), number(line.get("loss"))
        if moment is not None:
            self._recent.append((step, moment))
        if EVALUATED & line.keys():
            self.record.evaluations = [line]
        elif "rolled_back_from" not in line and loss is not None:
            self._last = line
            self._steps.append(step)
            self._losses.append(loss)

    def _read_recipe(self) -> None:
        record = self.record
        try:
            changed = (self.folder / RECIPE).stat().st_mtime_ns
            if changed == self._recipe_seen:
                return
            values = parse((self.folder / RECIPE).read_text("utf-8"))
            record.about = json_object((self.folder / RUN).read_bytes())
        except (OSError, ValueError, yaml.YAMLError):
            return
        self._recipe_seen = changed
        record.recipe = flat(values) if isinstance(values, dict) else {}
        record.kind = FINETUNE if command_of(values) == FINETUNE else PRETRAIN

    # The picture

    def card(self, width: int, now: float) -> list[Part]:
        """Return the run's CARD_LINES lines: what does not fit is left out whole."""
        fitting = console.fitting
        return [
            (console.padded(str(self.folder), width), "bold"),
            (sparkline(self._steps, self._losses, width), "cyan"),
            (fitting([self._progress(), self._loss()], width), ""),
            (fitting(self._pace(), width), ""),
            *((line, "") for line in self._evaluation(width)),
            self._state(now),
        ]

    def line(self, width: int, now: float) -> Part:
        """Return the run as one line, for many runs."""
        name = console.padded(str(self.folder), max(NAME, width // 3))
        state, style = self._state(now)
        items = [self._progress(), state, self._loss(), *self._pace(), *self._figures()]
        return console.fitting([name, *filter(None, items)], width), style

    def _progress(self) -> str:
        step, steps = self.record.last_step, self.record.steps
        return f"{step / steps:.0%}  step {step:,}/{steps:,}" if steps else f"step {step:,}"

    def _loss(self) -> str:
        return f"loss {self._losses[-1]:.3f}" if self._losses else ""

    def _pace(self) -> list[str]:
        """Return the time left and the speed."""
        items, steps = [], self.record.steps
        if self.record.finished:
            items.append(f"took {console.duration(self._recent[-1][1])}" if self._recent else "")
        elif steps and len(self._recent) > 1:
            (first, began), (last, ended) = self._recent[0], self._recent[-1]
            if last > first and ended > began:
                left = (steps - last) * (ended - began) / (last - first)
                items.append(f"{console.duration(left)} left")
        speed = number(self._last.get("tokens_per_second"))
        items.append(f"{speed:,.0f} tokens/s" if speed else "")
        return [item for item in items if item]

    def _figures(self) -> list[str]:
        figures = self.record.final_figures
        return [
            f"{name} {value:.1%}" if name.endswith("accuracy") else f"{name} {value:.3f}"
            for name, value in figures.items()
        ]

    def _evaluation(self, width: int) -> list[str]:
        """Return two lines about the last evaluation, the second with what the first lacks."""
        if not self.record.evaluations:
            return ["", ""]
        title = f"step {self.record.evaluations[-1]['step']:,}:"
        first = console.fitting([title, *self._figures()], width)
        taken = first.count("  ")
        return [first, console.fitting(self._figures()[taken:], width)]

    def _state(self, now: float) -> Part:
        if self.record.finished:
            return "finished", GREEN
        if self._changed is None:
            return "no step yet", YELLOW
        pairs = zip(self._recent, list(self._recent)[1:], strict=False)
        between = max((later[1] - earlier[1] for earlier, later in pairs), default=0.0)
        still = now - self._changed
        if still > max(STILL, STILL_LINES * between):
            return f"no new step for {console.duration(still)}", YELLOW
        return "", ""


def sparkline(steps: Sequence[float], values: Sequence[float], width: int) -> str:
    """Return the course of the values as blocks of eight heights, from lowest to highest."""
    curve = thinned(Series(np.array(steps), np.array(values)), width)
    if not len(curve.means):
        return ""
    low, high = float(curve.means.min()), float(curve.means.max())
    levels = ASCII_LEVELS if console.out.options.ascii_only else LEVELS
    share = (curve.means - low) / ((high - low) or 1.0)
    return "".join(levels[round(part * (len(levels) - 1))] for part in share.tolist())
