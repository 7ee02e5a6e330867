"""Recipes of many runs: grids, settings of single tasks, and stages that teach one another."""

import copy
import re
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sqzb.errors import Problem
from sqzb.glue.tasks import FINETUNED, NINE
from sqzb.recipe.schema import FinetuneRecipe
from sqzb.recipe.values import LocalPath, Section, changed_keys, flat

ALL = "all"


class PartialRecipe(Section):
    """Some keys of FinetuneRecipe; only the given ones are read and written."""

    @model_serializer(mode="wrap")
    def _given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        inside = {key: getattr(self, key) for key in self.model_fields_set}
        return {
            key: inside[key].model_dump(exclude_unset=True)
            if isinstance(inside[key], Section)
            else value
            for key, value in write(self).items()
            if key in inside
        }


if TYPE_CHECKING:

    class Settings(PartialRecipe):
        """Keys of a run that replace the recipe's."""

    class Grid(PartialRecipe):
        """Values to try, by key of a run."""

else:  # made from FinetuneRecipe's fields, so that their rules hold here too

    def _values(field: FieldInfo) -> tuple[Any, FieldInfo]:
        """Return the field of a grid: a list of the field's values, or a grid for a section."""
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            grid = _grid(field.annotation.model_fields)
            return grid, Field(grid())
        rule = (field.annotation, Field(), *field.metadata)
        return list[Annotated[rule]], Field([], min_length=1)

    def _grid(fields: dict[str, FieldInfo]) -> type[PartialRecipe]:
        return create_model(
            "Grid",
            __base__=PartialRecipe,
            **{name: _values(field) for name, field in fields.items()},
        )

    _OF_THE_WHOLE = ("task", "glue_dir", "data", "output", "trackers")  # never one run's own
    _FIELDS = {
        name: field
        for name, field in FinetuneRecipe.model_fields.items()
        if name not in _OF_THE_WHOLE
    }
    Settings = create_model(
        "Settings",
        __base__=PartialRecipe,
        **{name: (field.annotation, copy.copy(field)) for name, field in _FIELDS.items()},
    )
    Grid = _grid(_FIELDS)


def _stage_or_paths(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        message = "Input should be a stage's name, or a path, a Hub id or a list of these by task"
        raise PydanticCustomError("teacher", message) from None


# One error for all kinds, where pydantic has one for each kind of a union.
Teacher = Annotated[
    str | dict[str, LocalPath | Annotated[list[LocalPath], Field(min_length=1)]] | None,
    WrapValidator(_stage_or_paths),
]


class Stage(Settings):
    """A part of a chain of sweeps: its own keys, its teacher, and its first task."""

    teacher: Teacher = Field(
        None,
        description="the stage whose run of each task teaches this one; or finetuned models by "
        "task",
    )
    first: str | None = Field(
        None, description="task that the stage runs first: its other tasks start from that run"
    )

    def settings(self) -> dict[str, Any]:
        """Return the given keys of a run."""
        return self.model_dump(exclude={"teacher", "first"})


class SweepRecipe(FinetuneRecipe):
    """The recipe of sqzb finetune: the keys of one run, and those that make many runs of it.

    `task` may be several with commas between, or all. A sweep without stages has a single one, with
    an empty name.
    """

    sweep: Grid = Field(
        Grid(),
        description="values to try, such as sweep.lr=[1e-5,3e-5]; each combination is a run",
    )
    tasks: dict[str, Settings] = Field(
        {}, description="keys that have another value for a task, such as tasks.rte.epochs=10"
    )
    stages: dict[str, Stage] = Field(
        {},
        description="sweeps that teach one another or are compared, by a name of your choice, "
        "each with keys that have another value for it; NAME=null removes a stage",
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _without_null(cls, stages: Any) -> Any:
        """Remove a stage that is null, as `stages.NAME=null` sets it."""
        return (
            {name: s for name, s in stages.items() if s is not None}
            if isinstance(stages, dict)
            else stages
        )

    def names(self) -> list[str]:
        """Return the tasks that `task` names, whether they exist or not; or the own data's name."""
        if self.data.train:
            return [str(self.data_name)]
        if self.task == ALL:
            return list(NINE)
        return list(
            dict.fromkeys(name.strip() for name in (self.task or "").split(",") if name.strip())
        )

    def grid(self) -> dict[str, list[Any]]:
        """Return the values to try by dotted key, such as distillation.alpha, the seeds last."""
        return dict(
            sorted(flat(self.sweep.model_dump()).items(), key=lambda item: item[0] == "seed")
        )

    def teachers(self) -> set[str]:
        """Return the names of the stages that teach another stage."""
        return {stage.teacher for stage in self.stages.values() if isinstance(stage.teacher, str)}

    def in_order(self) -> dict[str, Stage]:
        """Return the stages, each after its teacher; they must have no circle of teachers."""

        def depth(name: str) -> int:
            teacher = self.stages[name].teacher
            return 1 + depth(teacher) if isinstance(teacher, str) else 0

        return {name: self.stages[name] for name in sorted(self.stages, key=depth)} or {"": Stage()}

    def tasks_of(self, name: str) -> list[str]:
        """Return a stage's tasks: its first, the recipe's, and those of the stages it teaches."""
        first = self.stages[name].first if name in self.stages else None
        pupils = [pupil for pupil, stage in self.stages.items() if stage.teacher == name]
        taught = [task for pupil in pupils for task in self.tasks_of(pupil)]
        return list(dict.fromkeys([*([first] if first else []), *self.names(), *taught]))

    def recipes(self, task: str | None, stage: str = "") -> list[FinetuneRecipe]:
        """Return a run's recipe for each combination of the grid's values; the seed varies fastest.

        Settings of a task replace the recipe's keys, those of the stage replace both, and the
        grid's values replace all. A stage that teaches has no grid, but one run of each task.
        Teachers and starting points of stages are not set.
        """
        values = self.model_dump(exclude={"sweep", "tasks", "stages"})
        values["task"] = None if self.data.train else task
        if task in self.tasks:
            values = _laid_over(values, self.tasks[task].model_dump())
        if stage in self.stages:
            values = _laid_over(values, self.stages[stage].settings())
        grid = {} if stage in self.teachers() else self.grid()
        return [
            FinetuneRecipe.model_validate(
                reduce(_laid_over, map(_nested, grid, combination), values)
            )
            for combination in product(*grid.values())
        ]

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); empty if none are."""
        twice = [
            (f"sweep.{key}", f"{value} is listed twice")
            for key, values in self.grid().items()
            for index, value in enumerate(values)
            if value in values[:index]
        ]
        stages = self.stages or ("",)
        runs = [
            run
            for task in (None, *self.tasks)
            for stage in stages
            for run in self.recipes(task, stage)
        ]
        of_runs = [problem for run in (self, *runs) for problem in FinetuneRecipe.problems(run)]
        if self.data.train and self.tasks:
            of_runs.append(("tasks", "is for GLUE, and has no effect on data of your own"))
        if self.stages and any(run.distillation.teacher for run in runs):
            of_runs.append(
                ("distillation.teacher", "with stages, name it in these: stages.NAME.teacher")
            )
        circles = [name for name in self.stages if self._circle(name)]
        of_stages = [
            problem
            for name in self.stages
            for problem in self._problems_of_stage(name, bool(circles))
        ]
        return [*twice, *dict.fromkeys(of_runs), *of_stages]

    def unread_keys(self) -> list[Problem]:
        """Return the keys that no run of the sweep reads, as (key, reason)."""
        runs: list[FinetuneRecipe] = [self]
        for task in (None, *self.tasks):
            for stage in self.stages or ("",):
                runs += self.recipes(task, stage)
        unread = [key for run in runs for key in FinetuneRecipe.unread_keys(run)]

        reason = "has no effect without a teacher (--teacher MODEL)"
        has_teacher = {name for name, stage in self.stages.items() if stage.teacher is not None}
        if not has_teacher and not any(run.distillation.teacher for run in runs):
            for run in runs:
                keys = changed_keys(run.distillation, "teacher")
                unread += [(f"distillation.{key}", reason) for key in keys]
        elif has_teacher:
            for name in self.stages.keys() - has_teacher:
                keys = self.stages[name].settings().get("distillation", {})
                unread += [(f"stages.{name}.distillation.{key}", reason) for key in keys]
        return list(dict.fromkeys(unread))

    def _problems_of_stage(self, name: str, circles: bool) -> Iterator[Problem]:
        key, teacher = f"stages.{name}.teacher", self.stages[name].teacher
        if not re.fullmatch(r"[\w-]+", name):
            yield "stages", f"{name!r} cannot name a folder: use letters, digits, _ and -"
        if isinstance(teacher, str) and teacher not in self.stages:
            known = ", ".join(self.stages)
            yield (
                key,
                f"there is no stage {teacher!r}, but {known}; finetuned models are given as "
                f"{{mrpc: PATH}}",
            )
        first = self.stages[name].first
        if first is not None and self.data.train:
            yield f"stages.{name}.first", "is a GLUE task, and data.train is data of your own"
        elif first not in (None, *FINETUNED):
            yield f"stages.{name}.first", _no_task([str(first)])
        if circle := self._circle(name):
            yield key, f"it would be taught by itself: {' by '.join(circle)}"
        if isinstance(teacher, dict):
            lacking = (
                [] if circles else [task for task in self.tasks_of(name) if task not in teacher]
            )
            if lacking:
                yield key, f"there is none for {', '.join(lacking)}"
            known_names = self.names() if self.data.train else FINETUNED
            unknown = [task for task in teacher if task not in known_names]
            if unknown:
                yield key, _no_task(unknown)

    def _circle(self, name: str) -> list[str]:
        """Return the path from a stage by its teachers back to itself; empty if there is none."""
        way, teacher = [name], self.stages[name].teacher
        while isinstance(teacher, str) and teacher in self.stages and teacher not in way:
            way.append(teacher)
            teacher = self.stages[teacher].teacher
        return [*way, name] if teacher == name else []


def _no_task(names: list[str]) -> str:
    return f"GLUE has {', '.join(FINETUNED)}, and no {', '.join(names)}"


def _laid_over(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the given ones in their place; sections are replaced key by key."""
    inside = {
        key: _laid_over(values[key], value)
        for key, value in given.items()
        if isinstance(value, dict)
    }
    return values | given | inside


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return `distillation.alpha` and 0.5 as {"distillation": {"alpha": 0.5}}."""
    section, dot, name = key.partition(".")
    return {section: _nested(name, value) if dot else value}
