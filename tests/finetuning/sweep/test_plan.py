"""A sweep's recipe: which runs it is, with stages behind which others, and what is refused
before anything runs.
"""

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.errors import RecipeError, UserError
from sqzb.finetuning.sweep.plan import Run, is_sweep, plan
from sqzb.glue.tasks import FINETUNED, TASKS
from sqzb.recipe import FinetuneRecipe, Section, SweepRecipe, dump_recipe, load_recipe

NINE = [name for name in TASKS if name != "ax"]
OUT = Path("out")


# Which runs


def test_a_grid_is_every_combination_and_the_seed_turns_fastest() -> None:
    given_ = SweepRecipe.model_validate(
        {
            "task": "mrpc",
            "sweep": {"seed": [1, 2], "batch": [16, 32], "lr": [1e-5, 3e-5], "dropout": [None]},
        }
    )
    runs = plan(given_, OUT)
    assert str(runs[0].folder) == "out/mrpc/lr=1e-05,batch=16,dropout=null,seed=1"
    assert [(run.recipe.lr, run.recipe.batch, run.recipe.seed) for run in runs] == [
        (lr, batch, seed) for lr in (1e-5, 3e-5) for batch in (16, 32) for seed in (1, 2)
    ]
    assert len({run.folder for run in runs}) == len(runs)


def test_a_name_is_one_folder_whatever_the_value() -> None:
    (run,) = plan(
        SweepRecipe.model_validate({"task": "rte", "sweep": {"model": ["owner/a,b"]}}), OUT
    )
    assert run.folder.parent == OUT / "rte" and run.recipe.model == "owner/a,b"


@pytest.mark.parametrize(
    ("task", "names"),
    [("all", NINE), ("mrpc,rte", ["mrpc", "rte"]), ("mrpc, rte,mrpc", ["mrpc", "rte"])],
)
def test_several_tasks(task: str, names: list[str]) -> None:
    assert [run.recipe.task for run in plan(SweepRecipe(task=task), OUT)] == names


def test_another_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean rte"):
        plan(SweepRecipe(task="mrpc,rt"), OUT)
    with pytest.raises(UserError, match="Did you mean rte"):
        plan(SweepRecipe.model_validate({"task": "mrpc,qqp", "tasks": {"rt": {"epochs": 1}}}), OUT)


def test_a_tasks_own_settings_stand_over_the_recipe_and_the_grid_over_both() -> None:
    values = {
        "task": "rte,qqp",
        "epochs": 3,
        "lr": 1e-5,
        "tasks": {"rte": {"epochs": 10, "lr": 2e-5, "batch": 8}},
    }
    rte, qqp = plan(SweepRecipe.model_validate(values), OUT)
    assert (rte.recipe.epochs, rte.recipe.lr, rte.recipe.batch) == (10, 2e-5, 8)
    assert (qqp.recipe.epochs, qqp.recipe.lr, qqp.recipe.batch) == (3, 1e-5, 16)
    runs = plan(SweepRecipe.model_validate(values | {"sweep": {"lr": [1e-3]}}), OUT)
    assert [run.recipe.lr for run in runs] == [1e-3, 1e-3]


def test_the_command_line_stands_over_tasks_and_grid_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: rte,qqp\nsweep: {lr: [1e-5, 2e-5], seed: [1, 2]}\n"
        "tasks: {rte: {epochs: 10, model: x}}\n"
    )
    runs = plan(
        load_recipe(SweepRecipe, path, ["epochs=2", "lr=3e-5", "sweep.seed=[7]"], model="y"), OUT
    )
    assert [
        (r.recipe.task, r.recipe.epochs, r.recipe.lr, r.recipe.seed, r.recipe.model) for r in runs
    ] == [(task, 2, 3e-5, 7, "y") for task in ("rte", "qqp")]


def test_one_task_without_a_grid_is_one_plain_run() -> None:
    one = SweepRecipe.model_validate(
        {"task": "rte", "output": "x", "tasks": {"rte": {"epochs": 9}}}
    )
    assert not is_sweep(one)
    assert one.recipes("rte") == [FinetuneRecipe(task="rte", output="x", epochs=9)]
    assert is_sweep(SweepRecipe.model_validate({"task": "rte", "sweep": {"seed": [1]}}))
    assert is_sweep(SweepRecipe(task="all")) and is_sweep(SweepRecipe(task="rte,cola"))


def test_a_runs_own_recipe_knows_of_no_sweep() -> None:
    (run,) = plan(
        SweepRecipe.model_validate({"task": "rte", "sweep": {"lr": [1]}, "tasks": {"rte": {}}}), OUT
    )
    assert type(run.recipe) is FinetuneRecipe
    assert not {"sweep:", "tasks:"} & set(dump_recipe(run.recipe).split())


def test_a_sweeps_recipe_survives_a_round_trip(tmp_path: Path) -> None:
    values = {
        "task": "rte",
        "sweep": {"lr": [1e-5], "dropout": [None, 0.1]},
        "tasks": {"rte": {"dropout": None}},
    }
    before = SweepRecipe.model_validate(values)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(before))
    assert load_recipe(SweepRecipe, tmp_path / "recipe.yaml").recipes("rte") == before.recipes(
        "rte"
    )


def test_everything_wrong_with_a_sweep_is_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "lr: -1\nsweep: {lr: [1e-5, -3], bach: [1], batch: 3, epochs: [], output: [x], "
        "max_length: [16, 16]}\n"
        "tasks: {rte: {epochs: 1.5, lrr: 3, task: x}, mrpc: 3}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(SweepRecipe, path, ["sweep.seed=[1,x]"])
    for problem in (
        "lr: should be a number over 0, or auto, not -1",
        "sweep.lr.1: should be a number over 0, or auto, not -3",
        "sweep.bach: unknown key; did you mean batch?",
        "sweep.batch: should be a valid list, not 3",
        "sweep.epochs: List should have at least 1 item",
        "sweep.output: unknown key",
        "sweep.seed.1: should be a valid integer, not 'x'",
        "sweep.max_length: 16 is listed twice",
        "tasks.rte.epochs: should be a whole number, 1 or more, or auto, not 1.5",
        "tasks.rte.lrr: unknown key; did you mean lr?",
        "tasks.rte.task: unknown key",
        "tasks.mrpc: ",
    ):
        assert f"\n  {problem}" in str(caught.value)


def keys(section: type[Section]) -> Iterator[tuple[str, Any]]:
    """Each key and its default, inside sections as distillation.alpha."""
    for key, field in section.model_fields.items():
        if key == "data":  # as a task: of one run
            continue
        if isinstance(field.default, Section):
            yield from ((f"{key}.{name}", default) for name, default in keys(type(field.default)))
        elif key not in ("task", "glue_dir", "output", "trackers"):  # of the whole sweep
            yield key, field.default


@pytest.mark.parametrize(("key", "default"), keys(FinetuneRecipe))
def test_every_key_can_be_swept_and_set_for_a_task_or_a_stage_by_its_own_rules(
    key: str, default: Any
) -> None:
    def recipes(where: str, value: Any) -> list[FinetuneRecipe]:
        section, dot, inside = key.partition(".")
        part = {section: {inside: value} if dot else value}
        values = {"task": "rte", where: part if where == "sweep" else {"rte": part}}
        return SweepRecipe.model_validate(values).recipes("rte", "rte")

    for where in ("sweep", "tasks", "stages"):
        (run,) = recipes(where, [default] if where == "sweep" else default)
        assert attrgetter(key)(run) == default
        with pytest.raises(ValueError, match=key):
            recipes(where, [["x", []]] if where == "sweep" else ["x", []])


def test_a_section_is_laid_over_key_by_key() -> None:
    values = {
        "task": "rte",
        "distillation": {"temperature": 4.0, "cache": "c"},
        "tasks": {"rte": {"distillation": {"alpha": 0.1, "cache": "d"}}},
        "stages": {"with": {"distillation": {"alpha": 0.2}}},
        "sweep": {"distillation": {"temperature": [1.0, 2.0]}, "seed": [1, 2]},
    }
    runs = plan(SweepRecipe.model_validate(values), OUT)
    assert [run.folder.name for run in runs[::2]] == [
        "distillation.temperature=1.0,seed=1",
        "distillation.temperature=2.0,seed=1",
    ]
    found = runs[2].recipe.distillation
    assert (found.temperature, found.alpha, found.cache, found.teacher) == (2.0, 0.2, "d", ())


# Stages


CHAIN = {
    "with": {"teacher": "teacher"},
    "without": {},
    "rte_first": {"teacher": "teacher", "first": "rte"},
    "teacher": {"model": "owner/large", "epochs": 3},
}


def test_a_chain_of_stages() -> None:
    values = {
        "task": "mrpc",
        "model": "small",
        "epochs": 9,
        "sweep": {"lr": [1e-5], "seed": [1, 2]},
        "stages": CHAIN,
    }
    runs = {str(run.folder): run for run in plan(SweepRecipe.model_validate(values), OUT)}
    students = [
        f"{task},seed={seed}" for task in ("rte/lr=1e-05", "mrpc/lr=1e-05") for seed in (1, 2)
    ]
    assert sorted(runs) == sorted(
        ["out/teacher/mrpc/seed=0", "out/teacher/rte/seed=0"]
        + [f"out/{stage}/{student}" for stage in ("with", "without") for student in students[2:]]
        + [f"out/rte_first/{student}" for student in students]
    )
    teacher = runs["out/teacher/mrpc/seed=0"].recipe
    assert (teacher.model, teacher.epochs, teacher.distillation.teacher) == ("owner/large", 3, ())
    for stage, model, taught in (
        ("without", "small", ()),
        ("with", "small", ("out/teacher/mrpc/seed=0",)),
        ("rte_first", "out/rte_first/rte/lr=1e-05,seed=2", ("out/teacher/mrpc/seed=0",)),
    ):
        student = runs[f"out/{stage}/mrpc/lr=1e-05,seed=2"].recipe
        assert (student.model, student.distillation.teacher, student.epochs) == (model, taught, 9)


def test_weights_of_the_first_task_are_taken_though_it_began_from_random_ones() -> None:
    values = {"task": "rte", "from_scratch": True, "stages": {"a": {"first": "mnli"}}}
    mnli, rte = plan(SweepRecipe.model_validate(values), OUT)
    assert (mnli.recipe.from_scratch, rte.recipe.from_scratch) == (True, False)


def test_what_two_stages_have_alike_is_made_once() -> None:
    stages = {
        "teacher": {},
        "with": {"teacher": "teacher"},
        "mnli_first": {"teacher": "teacher", "first": "mnli"},
    }
    runs = plan(
        SweepRecipe.model_validate(
            {"task": "mnli,rte", "stages": stages, "sweep": {"seed": [1, 2]}}
        ),
        OUT,
    )
    again = {str(run.folder): str(run.same) for run in runs if run.same is not None}
    assert again == {
        f"out/mnli_first/mnli/seed={seed}": f"out/with/mnli/seed={seed}" for seed in (1, 2)
    }


def test_teachers_may_be_given_by_task() -> None:
    given_ = {"mrpc": "runs/large", "rte": ["owner/one", "two"], "qqp": "of no use"}
    values = {"task": "mrpc,rte", "stages": {"with": {"teacher": given_}}}
    mrpc, rte = plan(SweepRecipe.model_validate(values), OUT)
    assert (mrpc.recipe.distillation.teacher, rte.recipe.distillation.teacher) == (
        ("runs/large",),
        ("owner/one", "two"),
    )
    assert mrpc.needs == rte.needs == ()


tasks = st.lists(st.sampled_from(NINE), min_size=1, max_size=3, unique=True)


@st.composite
def chains(draw: st.DrawFn) -> SweepRecipe:
    """Stages in any order, each plain or taught by another; grids, seeds, and tasks with
    seeds of their own.
    """
    drawn = draw(st.permutations("abcd"))
    stages: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(drawn):
        stages[name] = {}
        if number and draw(st.booleans()):
            stages[name]["teacher"] = draw(st.sampled_from(drawn[:number]))
        if draw(st.booleans()):
            stages[name]["first"] = draw(st.sampled_from(NINE))
    lists = {
        "seed": st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True),
        "lr": st.just([1e-5, 3e-5]),
    }
    own = st.builds(lambda seed: {"seed": seed}, st.integers(0, 9))
    values = {
        "task": ",".join(draw(tasks)),
        "stages": dict(sorted(stages.items())),
        "sweep": draw(st.fixed_dictionaries({}, optional=lists)),
        "tasks": draw(st.dictionaries(st.sampled_from(NINE), own, max_size=2)),
    }
    return SweepRecipe.model_validate(values)


def but_place(run: Run) -> FinetuneRecipe:
    return run.recipe.model_copy(update={"output": None})


@given(chains())
def test_in_every_chain_each_run_is_behind_its_teacher_and_its_start(chain: SweepRecipe) -> None:
    assert chain.problems() == []
    runs = plan(chain, OUT)
    places = {run.folder: place for place, run in enumerate(runs)}
    assert len(places) == len(runs)
    for place, run in enumerate(runs):
        stage = chain.stages[run.stage]
        named = [Path(path) for path in (*run.recipe.distillation.teacher, run.recipe.model)]
        same = [other.folder for other in runs[:place] if but_place(other) == but_place(run)]
        assert run.same == (same[0] if same else None)
        assert run.needs == (
            tuple(same[:1]) or tuple(folder for folder in named if folder in places)
        )
        assert all(places[folder] < place for folder in run.needs)
        teachers = [runs[places[Path(path)]] for path in run.recipe.distillation.teacher]
        wanted = [] if stage.teacher is None else [(stage.teacher, run.recipe.task)]
        assert [(teacher.stage, teacher.recipe.task) for teacher in teachers] == wanted
        if stage.first not in (None, run.recipe.task):
            start = runs[places[Path(run.recipe.model)]]
            assert (start.stage, start.recipe.task, start.setting) == (
                run.stage,
                stage.first,
                run.setting,
            )
            assert (
                start.recipe.seed == run.recipe.seed
                or "seed" not in chain.grid()
                or run.stage in chain.teachers()
            )
        else:
            assert run.recipe.model == chain.model
    several = np.prod([len(values) for values in chain.grid().values()], dtype=int)
    for name in chain.stages:
        found = [run.recipe.task for run in runs if run.stage == name]
        assert set(chain.names()) <= set(found)
        assert {found.count(task) for task in found} == {1 if name in chain.teachers() else several}


def test_the_command_line_stands_over_stages_but_not_over_what_a_teacher_says_of_itself(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "{task: rte, stages: {"
        "t: {teacher: {rte: other}, model: large, epochs: 3, distillation: {alpha: 0.3}}, "
        "s: {teacher: t, model: x, epochs: 4, distillation: {alpha: 0.4, temperature: 4.0}}}, "
        "tasks: {rte: {epochs: 5, distillation: {alpha: 0.5}}}, "
        "sweep: {distillation: {alpha: [0.6, 0.7]}}}"
    )
    teacher, student = plan(
        load_recipe(SweepRecipe, path, ["epochs=1", "distillation.alpha=0.0"], model="small"), OUT
    )
    assert (teacher.recipe.model, teacher.recipe.epochs, teacher.recipe.distillation.alpha) == (
        "large",
        3,
        0.3,
    )
    assert (student.recipe.model, student.recipe.epochs) == ("small", 1)
    assert (student.recipe.distillation.alpha, student.recipe.distillation.temperature) == (
        0.0,
        4.0,
    )
    named = load_recipe(SweepRecipe, path, ["stages.t.epochs=2", "stages.s.epochs=6"])
    assert [run.recipe.epochs for run in plan(named, OUT)] == [2, 6, 6]
    alone = plan(load_recipe(SweepRecipe, path, ["stages.s=null"]), OUT)
    assert [(run.stage, run.recipe.distillation.alpha) for run in alone] == [("t", 0.6), ("t", 0.7)]


def test_everything_wrong_with_stages_is_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "{task: 'mrpc,rte', distillation: {teacher: x}, stages: {"
        "a: {teacher: b}, b: {teacher: c}, c: {teacher: a}, d: {teacher: a}, "
        "self: {teacher: self}, lone: {teacher: teecher}, path/of: {}, "
        "odd: {first: ax, output: x, epochss: 3, lr: -1, teacher: [x]}, "
        "more: {first: mnli, teacher: {mrpc: x, mrcp: x, rte: []}}}}"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(SweepRecipe, path)
    for problem in (
        "distillation.teacher: with stages, name it in these: stages.NAME.teacher",
        "stages.a.teacher: it would be taught by itself: a by b by c by a",
        "stages.self.teacher: it would be taught by itself: self by self",
        "stages.lone.teacher: there is no stage 'teecher', but a, b, c, d, self, lone, path/of, "
        "odd, more",
        "stages: 'path/of' cannot name a folder",
        "stages.odd.first: GLUE has cola, ",
        "stages.odd.output: unknown key",
        "stages.odd.epochss: unknown key; did you mean epochs?",
        "stages.odd.lr: should be a number over 0, or auto, not -1",
        "stages.odd.teacher: should be a stage's name, or a path, a Hub id or a list of these by "
        "task, not ['x']",
        "stages.more.teacher: should be a stage's name",
    ):
        assert f"\n  {problem}" in str(caught.value)
    assert "stages.d.teacher" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "lacking"),
    [("mrpc,rte", "rte, mnli"), ("all", "cola, sst2, qqp, stsb, mnli, qnli, rte, wnli")],
)
def test_a_task_without_a_teacher_is_told(task: str, lacking: str) -> None:
    stages = "stages={a: {teacher: {mrpc: x, mrcp: y}}, b: {teacher: a, first: mnli}}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(SweepRecipe, None, [f"task='{task}'", stages])
    assert f"stages.a.teacher: there is none for {lacking}\n" in str(caught.value)
    assert "stages.a.teacher: GLUE has cola, " in str(caught.value) and "and no mrcp" in str(
        caught.value
    )


def test_the_recipes_tasks_are_those_of_the_table() -> None:
    assert list(FINETUNED) == NINE
