"""The runs of a sweep, and which runs each of them needs."""

import json
import os
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sqzb.errors import RecipeError
from sqzb.glue.tasks import task
from sqzb.recipe import ALL, FinetuneRecipe, SweepRecipe


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
        return "/".join(filter(None, (self.stage, self.recipe.data_name, self.folder.name)))

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


def check_tasks(recipe: SweepRecipe) -> None:
    """Check that the recipe names data: tasks that exist, or files of the user's own.

    Raises:
        RecipeError: the recipe names no data, or a task that does not exist.
    """
    if not recipe.names():
        raise RecipeError(
            "There is no data. Give --train FILE for data of your own, or tasks of GLUE, such as "
            "--task mrpc, --task mrpc,rte or --task all."
        )
    if not recipe.data.train:
        for name in (*recipe.names(), *recipe.tasks):
            task(name)


def plan(recipe: SweepRecipe, output: Path) -> list[Run]:
    """The sweep's runs, each behind those that it needs, whose folders are `output`/STAGE/TASK/SETTINGS, without
    STAGE where there are none; UserError when a task is none of GLUE's."""
    check_tasks(recipe)
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
    recipe: SweepRecipe,
    stage: str,
    name: str,
    output: Path,
    taught_by: Sequence[Run],
    starts: Sequence[Run],
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
        runs.append(
            Run(stage, setting, FinetuneRecipe.model_validate(one.model_dump() | changes), needs)
        )
    return runs


def _written(value: Any) -> str:
    """A value as a part of a folder's name."""
    return quote(value if isinstance(value, str) else json.dumps(value), safe="")
