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

    stage: name of its stage; empty without stages.
    setting: its values of the grid without the seed, as lr=1e-05,batch=16; empty without a grid.
    needs: folders of the runs that come first: its teacher, and the run that it starts from.
    same: folder of an equal run in an earlier stage. The run is not repeated; its folder is a link.
    """

    stage: str
    setting: str
    recipe: FinetuneRecipe
    needs: tuple[Path, ...] = ()
    same: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.recipe.output or "")

    @property
    def name(self) -> str:
        """The name of the run in messages: stage, data and folder."""
        return "/".join(filter(None, (self.stage, self.recipe.data_name, self.folder.name)))

    def link(self) -> None:
        """Make the link to the equal run, unless the path exists."""
        if self.same is not None and not os.path.lexists(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.symlink_to(os.path.relpath(self.same, self.folder.parent))

    def beside(self, suffix: str) -> Path:
        """Return the path of a file about the run, beside its folder, which must start empty."""
        return self.folder.with_name(self.folder.name + suffix)


def is_sweep(recipe: SweepRecipe) -> bool:
    """Return whether the recipe has stages, several tasks or a grid, of whatever size."""
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
    """Return the sweep's runs, each after the runs that it needs.

    Their folders are `output`/STAGE/TASK/SETTINGS, without STAGE if there are no stages.

    Raises:
        UserError: there is no task, or a task is not one of GLUE's.
    """
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
    """Return the run, as a link if an earlier run has the same recipe but for its folder.

    An example is MNLI with a teacher, which is a task of one stage and the start of another.
    """
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
    """Return the runs of a task in a stage.

    taught_by: the teacher's runs.
    starts: for each run, the run that it starts from, in the order of the grid; may be empty.
    """
    keys = [] if stage in recipe.teachers() else [key for key in recipe.grid() if key != "seed"]
    given = recipe.stages[stage].teacher if stage else None
    teacher = given[name] if isinstance(given, dict) else [str(run.folder) for run in taught_by]
    runs = []
    for place, settings in enumerate(recipe.recipes(name, stage)):
        setting = ",".join(f"{key}={_written(attrgetter(key)(settings))}" for key in keys)
        folder = output / stage / name / ",".join(filter(None, (setting, f"seed={settings.seed}")))
        changes: dict[str, Any] = {"output": str(folder)}
        if teacher:
            changes["distillation"] = settings.distillation.model_dump() | {"teacher": teacher}
        if starts:
            changes |= {"model": str(starts[place].folder), "from_scratch": False}
        needs = tuple(run.folder for run in (*taught_by, *starts[place : place + 1]))
        runs.append(
            Run(
                stage,
                setting,
                FinetuneRecipe.model_validate(settings.model_dump() | changes),
                needs,
            )
        )
    return runs


def _written(value: Any) -> str:
    """Return a value as a part of a folder's name."""
    return quote(value if isinstance(value, str) else json.dumps(value), safe="")
