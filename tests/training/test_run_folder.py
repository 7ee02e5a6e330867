"""The run's log: whole lines, none lost and none twice after a resume."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.data.dataset import Classes
from sqzb.data.known import Known
from sqzb.errors import UserError
from sqzb.finetuning.data import read_known, write_known
from sqzb.recipe import FinetuneRecipe, dump_recipe, load_recipe
from sqzb.training.run_folder import (
    METRICS,
    RECIPE,
    RUN,
    RunLog,
    evaluations,
    final_figures,
    git_state,
    recipe_of,
    refuse_used,
    resumes_of,
)


def lines(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{key: line[key] for key in line if key != "time"} for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@given(st.lists(st.integers(0, 30), max_size=12).map(sorted), st.integers(-1, 31), st.data())
def test_a_resume_drops_what_comes_again_and_a_torn_line(
    folder: Path, steps: list[int], resumed: int, data: st.DataObject
) -> None:
    (folder / METRICS).unlink(missing_ok=True)
    log = RunLog(folder, write=True)
    for step in steps:
        log.log(step, loss=step / 7, text="é\u2028")
    if steps:
        content = (folder / METRICS).read_bytes()
        last = content.rindex(b"{")
        torn = data.draw(st.integers(last, len(content) - 1))
        (folder / METRICS).write_bytes(content[:torn])
        whole = steps if torn == len(content) - 1 else steps[:-1]  # only the line's end is missing
    else:
        whole = []
    log.forget_after(resumed)
    log.log(99)
    kept = [step for step in whole if step <= resumed]
    assert [line["step"] for line in lines(folder)] == [*kept, 99]
    assert all(line["loss"] == line["step"] / 7 for line in lines(folder)[:-1])


def test_lines_that_are_no_objects_are_dropped(folder: Path) -> None:
    (folder / METRICS).write_text('[1]\n"text"\nnull\n{"loss": 1}\n{"step": null}\n{"step": 1}\n')
    RunLog(folder, write=True).forget_after(5)
    assert lines(folder) == [{"step": 1}]


LINE = st.binary(max_size=30) | st.sampled_from(
    [
        *(b'{"step": 1}', b'{"step": 1.5}', b'{"step": true}', b'{"step": "1"}', b"[1]", b"{"),
        *(b'{"step": 2, "validation_score": 0.5}', b'{"step": 2, "validation_score": null}'),
        *(b'{"step": 1' + b"0" * 400 + b"}", b"[" * 100_000, b'{"validation_score": 1}'),
    ]
)


@given(st.lists(LINE, max_size=6), st.integers(0, 3))
def test_whatever_the_log_holds_it_is_read(folder: Path, content: list[bytes], step: int) -> None:
    (folder / "final").mkdir(exist_ok=True)
    (folder / METRICS).write_bytes(b"\n".join(content))
    found = evaluations(folder)
    assert all(isinstance(line["step"], int) for line in found)
    figures = final_figures(folder)
    assert figures is None or figures["score"] == found[-1]["validation_score"]
    RunLog(folder, write=True).forget_after(step)
    assert evaluations(folder) == [line for line in found if line["step"] <= step]
    assert all(line["step"] <= step for line in lines(folder))


def test_lines_that_are_removed_unread_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / METRICS).write_bytes(b'{"step": 1}\n\xff\n{"step": 2}\n[]\n{"st')
    RunLog(folder, write=True).forget_after(5)
    assert "2 lines cannot be read, the first is line 2" in " ".join(
        capsys.readouterr().err.split()
    )
    assert lines(folder) == [{"step": 1}, {"step": 2}]


def test_evaluations_are_found(tmp_path: Path) -> None:
    assert evaluations(tmp_path) == []
    log = RunLog(tmp_path, write=True)
    log.log(1, loss=1.0)
    assert evaluations(tmp_path) == []
    for step, score in ((1, 0.5), (2, 0.25)):
        log.log(step, validation_score=score)
        log.log(step + 1, loss=1.0)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 3, "validation_sc')
    found = [(line["step"], line["validation_score"]) for line in evaluations(tmp_path)]
    assert found == [(1, 0.5), (2, 0.25)]
    assert [log.evaluated(step) for step in (1, 2, 3)] == [True, True, False]


def test_a_figure_that_is_not_finite_is_null(folder: Path) -> None:
    (folder / METRICS).unlink(missing_ok=True)
    RunLog(folder, write=True).log(1, loss=float("nan"), grad_norm=float("inf"), lr=0.1)
    assert lines(folder) == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.1}]


def test_a_run_records_how_it_was_made(tmp_path: Path) -> None:
    recipe = FinetuneRecipe(task="rte", seed=5)
    RunLog(tmp_path / "deep" / "run", write=True).start(recipe, 5, "cpu", False, 2, 1e12)
    assert load_recipe(FinetuneRecipe, tmp_path / "deep" / "run" / RECIPE) == recipe
    run = json.loads((tmp_path / "deep" / "run" / RUN).read_text())
    assert (
        run["seed"] == 5
        and {"torch", "python", "sqzb"} <= run["versions"].keys()
        and run["command"]
    )
    assert run["hardware"]["device"] == "cpu" and run["hardware"]["processes"] == 2
    assert run["hardware"]["peak_flops"] == 1e12 and run["hardware"]["kernels"] is False


@given(st.lists(st.integers(0, 50), max_size=6))
def test_a_run_keeps_the_steps_at_which_it_was_resumed(folder: Path, steps: list[int]) -> None:
    """A mark goes with its steps where the run is resumed from an earlier checkpoint."""
    (folder / RUN).unlink(missing_ok=True)
    expected: list[int] = []
    for step in steps:
        RunLog(folder, write=True).start(FinetuneRecipe(), 0, "cpu", False, 1, 1e12, step)
        expected = [*(mark for mark in expected if mark <= step), *([step] if step else [])]
        assert [mark["step"] for mark in resumes_of(folder)] == expected


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"resumes": 1}', '{"resumes": [1]}', "[" * 50_000]
)
def test_a_damaged_run_json_has_no_resumes(tmp_path: Path, content: str) -> None:
    (tmp_path / RUN).write_text(content)
    assert resumes_of(tmp_path) == []


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run", write=False)
    log.start(FinetuneRecipe(), 0, "cpu", True, 2, 1e12)
    log.log(1, loss=1.0)
    log.forget_after(0)
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    refuse_used(tmp_path)
    refuse_used(tmp_path / "absent")
    (tmp_path / "file").touch()
    for used, problem in ((tmp_path, "not empty"), (tmp_path / "file", "is a file, not a folder")):
        with pytest.raises(UserError, match=problem):
            refuse_used(used)


def test_a_run_is_finished_by_its_last_line(tmp_path: Path) -> None:
    """An evaluation of an earlier epoch, or final/ before it is measured, is not the end."""
    assert final_figures(tmp_path) is None
    (tmp_path / "final").mkdir()
    log = tmp_path / "metrics.jsonl"
    for text, found in (
        ("", None),
        ('{"step": 1, "validation_score": 0.5}\n{"step": 2, "loss": 1.0}\n', None),
        ('{"step": 2, "loss": 1.0}\n{"step": 2, "validation_sc', None),
        (
            '{"step": 2, "validation_f1": 0.25, "validation_score": 0.5}\n',
            {"f1": 0.25, "score": 0.5},
        ),
    ):
        log.write_text(text)
        assert final_figures(tmp_path) == found
    (tmp_path / "final").rmdir()
    assert final_figures(tmp_path) is None


def test_a_checkpoint_and_final_have_the_recipe_and_data_of_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = FinetuneRecipe(task="rte", max_length=17)
    (tmp_path / "run" / "checkpoints" / "step-0000001").mkdir(parents=True)
    (tmp_path / "run" / "final").mkdir()
    (tmp_path / "run" / RECIPE).write_text(dump_recipe(recipe))
    known = Known("reviews", ("text",), "label", (), Classes(("a", "b")))
    write_known(tmp_path / "run", known)
    places = ["run", "run/final", "run/checkpoints/step-0000001", "run/checkpoints/"]
    found = [recipe_of(str(tmp_path / place), FinetuneRecipe) for place in places]
    assert found == [recipe, recipe, recipe, None]
    assert [read_known(tmp_path / place) for place in places] == [known, known, known, None]
    for place in places[:3]:
        monkeypatch.chdir(tmp_path / place)
        assert recipe_of(".", FinetuneRecipe) == recipe and read_known(Path()) == known


def test_a_runs_damaged_recipe_is_no_other_recipe(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text("corpus: c\nsteps: 3\nmodel: {}\n")
    assert recipe_of(str(tmp_path), FinetuneRecipe) is None
    for text in ("task: [", "tsk: mrpc\n", "task: mrpc\nlr: fast\n"):
        (tmp_path / RECIPE).write_text(text)
        (tmp_path / RUN).unlink(missing_ok=True)
        assert recipe_of(str(tmp_path), FinetuneRecipe) is None  # a user's file beside a model
        (tmp_path / RUN).touch()
        with pytest.raises(UserError, match="restore it from a copy of the run"):
            recipe_of(str(tmp_path), FinetuneRecipe)


def test_a_finished_run_with_removed_keys_is_still_read(tmp_path: Path) -> None:
    text = "task: mrpc\ndistillation: {teacher: [x], hidden: 0.5, attention: 1.0}\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = recipe_of(str(tmp_path), FinetuneRecipe)
    assert recipe is not None and (recipe.task, recipe.distillation.teacher) == ("mrpc", ("x",))


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_has_its_commit_and_says_whether_the_package_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "package" / "module.py"
    module.parent.mkdir()
    module.touch()
    assert git_state(module.parent) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    state = {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    assert git_state(module.parent) == state
    (tmp_path / "notes.txt").touch()  # not of the package
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert git_state(module.parent) == state
    module.write_text("changed = True")
    assert git_state(module.parent) == state | {"changed": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(module.parent) is None


def test_a_package_inside_of_an_installation_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    package = tmp_path / "site-packages" / "package"
    package.mkdir(parents=True)
    assert git_state(package) is None
    assert git_state(tmp_path / "package") is None  # .git is not a repository
