"""Sweeps: which runs they are, what stops them and how they go on, and the table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqzb.errors import RecipeError, UserError
from sqzb.finetuning.sweep import Run, _environments, figures, is_sweep, plan, report, spread, summary, sweep
from sqzb.finetuning.tasks import TASKS
from sqzb.finetuning.trainer import finetune
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.recipe import FinetuneRecipe, SweepRecipe, dump_recipe, load_recipe
from sqzb.tokenizer import train_tokenizer
from stopped_runs import lines, write_task

NINE = [name for name in TASKS if name != "ax"]
OUT = Path("out")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and MRPC's files, and no other task's."""
    folder = tmp_path_factory.mktemp("sweep")
    tokenizer = train_tokenizer(["water river stone winter light"] * 3, 100, lowercase=True)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    torch.manual_seed(0)
    config = SqueezeBertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=32, **sizes)
    SqueezeBertForPreTraining(config).save_pretrained(folder / "model", tokenizer)
    write_task(folder, 40)
    return folder


def recipe(place: Path, **changes: Any) -> SweepRecipe:
    settings = {"task": "mrpc", "model": str(place / "model"), "epochs": 1, "batch": 8, "max_length": 16}
    return SweepRecipe.model_validate(settings | changes)


# Which runs


def test_a_grid_is_every_combination_and_the_seed_turns_fastest() -> None:
    given_ = SweepRecipe.model_validate(
        {"task": "mrpc", "sweep": {"seed": [1, 2], "batch": [16, 32], "lr": [1e-5, 3e-5], "dropout": [None]}}
    )
    runs = plan(given_, OUT)
    assert str(runs[0].folder) == "out/mrpc/lr=1e-05,batch=16,dropout=null,seed=1"
    assert [(run.recipe.lr, run.recipe.batch, run.recipe.seed) for run in runs] == [
        (lr, batch, seed) for lr in (1e-5, 3e-5) for batch in (16, 32) for seed in (1, 2)
    ]
    assert len({run.folder for run in runs}) == len(runs)


def test_a_name_is_one_folder_whatever_the_value() -> None:
    (run,) = plan(SweepRecipe.model_validate({"task": "rte", "sweep": {"model": ["owner/a,b"]}}), OUT)
    assert run.folder.parent == OUT / "rte" and run.recipe.model == "owner/a,b"


@pytest.mark.parametrize(
    ("task", "names"), [("all", NINE), ("mrpc,rte", ["mrpc", "rte"]), ("mrpc, rte,mrpc", ["mrpc", "rte"])]
)
def test_several_tasks(task: str, names: list[str]) -> None:
    assert [run.recipe.task for run in plan(SweepRecipe(task=task), OUT)] == names


def test_another_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean rte"):
        plan(SweepRecipe(task="mrpc,rt"), OUT)
    with pytest.raises(UserError, match="Did you mean rte"):
        plan(SweepRecipe.model_validate({"task": "mrpc,qqp", "tasks": {"rt": {"epochs": 1}}}), OUT)


def test_a_tasks_own_settings_stand_over_the_recipe_and_the_grid_over_both() -> None:
    values = {"task": "rte,qqp", "epochs": 3, "lr": 1e-5, "tasks": {"rte": {"epochs": 10, "lr": 2e-5, "batch": 8}}}
    rte, qqp = plan(SweepRecipe.model_validate(values), OUT)
    assert (rte.recipe.epochs, rte.recipe.lr, rte.recipe.batch) == (10, 2e-5, 8)
    assert (qqp.recipe.epochs, qqp.recipe.lr, qqp.recipe.batch) == (3, 1e-5, 16)
    runs = plan(SweepRecipe.model_validate(values | {"sweep": {"lr": [1e-3]}}), OUT)
    assert [run.recipe.lr for run in runs] == [1e-3, 1e-3]


def test_the_command_line_stands_over_tasks_and_grid_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: rte,qqp\nsweep: {lr: [1e-5, 2e-5], seed: [1, 2]}\ntasks: {rte: {epochs: 10, model: x}}\n")
    runs = plan(load_recipe(SweepRecipe, path, ["epochs=2", "lr=3e-5", "sweep.seed=[7]"], model="y"), OUT)
    assert [(r.recipe.task, r.recipe.epochs, r.recipe.lr, r.recipe.seed, r.recipe.model) for r in runs] == [
        (task, 2, 3e-5, 7, "y") for task in ("rte", "qqp")
    ]


def test_one_task_without_a_grid_is_one_plain_run() -> None:
    one = SweepRecipe.model_validate({"task": "rte", "output": "x", "tasks": {"rte": {"epochs": 9}}})
    assert not is_sweep(one)
    assert one.recipes("rte") == [FinetuneRecipe(task="rte", output="x", epochs=9)]
    assert is_sweep(SweepRecipe.model_validate({"task": "rte", "sweep": {"seed": [1]}}))
    assert is_sweep(SweepRecipe(task="all")) and is_sweep(SweepRecipe(task="rte,cola"))


def test_a_runs_own_recipe_knows_of_no_sweep() -> None:
    (run,) = plan(SweepRecipe.model_validate({"task": "rte", "sweep": {"lr": [1]}, "tasks": {"rte": {}}}), OUT)
    assert type(run.recipe) is FinetuneRecipe
    assert not {"sweep:", "tasks:"} & set(dump_recipe(run.recipe).split())


def test_a_sweeps_recipe_survives_a_round_trip(tmp_path: Path) -> None:
    values = {"task": "rte", "sweep": {"lr": [1e-5], "dropout": [None, 0.1]}, "tasks": {"rte": {"dropout": None}}}
    before = SweepRecipe.model_validate(values)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(before))
    assert load_recipe(SweepRecipe, tmp_path / "recipe.yaml").recipes("rte") == before.recipes("rte")


def test_everything_wrong_with_a_sweep_is_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "lr: -1\nsweep: {lr: [1e-5, -3], bach: [1], batch: 3, epochs: [], output: [x], max_length: [16, 16]}\n"
        "tasks: {rte: {epochs: 1.5, lrr: 3, task: x}, mrpc: 3}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(SweepRecipe, path, ["sweep.seed=[1,x]"])
    for problem in (
        "lr: should be greater than 0, not -1",
        "sweep.lr.1: should be greater than 0, not -3",
        "sweep.bach: unknown key; did you mean batch?",
        "sweep.batch: should be a valid list, not 3",
        "sweep.epochs: List should have at least 1 item",
        "sweep.output: unknown key",
        "sweep.seed.1: should be a valid integer, not 'x'",
        "sweep.max_length: 16 stands twice",
        "tasks.rte.epochs: should be a valid integer, not 1.5",
        "tasks.rte.lrr: unknown key; did you mean lr?",
        "tasks.rte.task: unknown key",
        "tasks.mrpc: ",
    ):
        assert f"\n  {problem}" in str(caught.value)


@pytest.mark.parametrize("key", sorted(FinetuneRecipe.model_fields.keys() - {"task", "output"}))
def test_every_key_can_be_swept_and_set_for_a_task_by_its_own_rules(key: str) -> None:
    default = FinetuneRecipe.model_fields[key].default
    for good in ({"sweep": {key: [default]}}, {"tasks": {"rte": {key: default}}}):
        SweepRecipe.model_validate(good)
    for bad in ({"sweep": {key: [["x"]]}}, {"tasks": {"rte": {key: ["x"]}}}):
        with pytest.raises(ValueError, match=key):
            SweepRecipe.model_validate(bad)


# The processes


def command(place: Path, output: Path, *more: str) -> list[str]:
    arguments = ["--task", "mrpc", "--model", str(place / "model"), "--glue-dir", str(place), "--output", str(output)]
    settings = ["epochs=30", "batch=8", "max_length=16", "log_every=1", "checkpoint_every=20", "lr=1e-3"]
    return [sys.executable, "-m", "sqzb", "finetune", *arguments, "--seeds", "1,2", "--jobs", "2", *settings, *more]


def start(place: Path, output: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command(place, output), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not true():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_stopped_and_a_killed_sweep_go_on_as_if_nothing_had_happened(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    runs = [output / "mrpc" / f"seed={seed}" for seed in (1, 2)]

    process = start(place, output)
    wait_until(lambda: all(len(lines(run)) > 20 for run in runs), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: the sweep has stopped with 0 of 2 runs finished" in said and "The same command goes on" in said
    assert "Traceback" not in said
    for run in runs:
        step = lines(run)[-1]["step"]
        assert step < 150 and (run / "checkpoints" / f"step-{step:07d}").is_dir()
        assert "SIGTERM: stopped after step" in run.with_name(run.name + ".log").read_text()

    before = [len(lines(run)) for run in runs]
    process = start(place, output)
    wait_until(lambda: all(len(lines(run)) > n + 5 for run, n in zip(runs, before, strict=True)), process)
    process.kill()
    process.communicate()
    process = start(place, output)  # while the killed one's runs may be at work still
    told, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Scores on validation" in told
    results = json.loads((output / "results.json").read_text())
    assert [run["seed"] for run in results["runs"]] == [1, 2] and results["failed"] == []

    wanted = load_recipe(FinetuneRecipe, runs[1] / "recipe.yaml").model_copy(update={"output": str(tmp_path / "whole")})
    whole = finetune(wanted, place)
    assert lines(runs[1]) == lines(whole)
    final = "final/model.safetensors"
    assert (runs[1] / final).read_bytes() == (whole / final).read_bytes()


def test_a_failed_run_is_told_and_the_others_are_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output = tmp_path / "out"
    both = recipe(place, task="rte,mrpc", output=str(output), sweep={"seed": [3]})
    with pytest.raises(UserError) as caught:
        sweep(both, place, jobs=2)
    assert "1 of 2 runs failed:\n  rte/seed=3: exit code 1" in str(caught.value)
    assert "has no folder RTE" in str(caught.value)
    results = json.loads((output / "results.json").read_text())
    assert results["failed"] == ["rte/seed=3"]
    (run,) = results["runs"]
    logged = lines(output / "mrpc/seed=3")[-1]
    assert (run["score"], run["f1"]) == (logged["validation_score"], logged["validation_f1"])
    assert results["rows"] == [
        {"task": "mrpc", "setting": "", "best_setting": True, **spread([logged["validation_score"]])}
    ]

    # A finished run is kept as it is; another recipe is refused before anything runs.
    before = {path: path.stat().st_mtime_ns for path in (output / "mrpc").rglob("*")}
    mrpc = both.model_copy(update={"task": "mrpc"})
    assert sweep(mrpc, place)["runs"] == results["runs"]
    with pytest.raises(UserError, match=r"seed=3: epochs was 1, is 2\nPut these back"):
        sweep(mrpc.model_copy(update={"epochs": 2}), place)
    with pytest.raises(UserError, match="folder of a single run"):
        sweep(mrpc.model_copy(update={"output": str(output / "mrpc/seed=3")}), place)
    (tmp_path / "other/mrpc/seed=3").mkdir(parents=True)
    (tmp_path / "other/mrpc/seed=3/notes.txt").touch()
    with pytest.raises(UserError, match="seed=3 is not empty"):
        sweep(mrpc.model_copy(update={"output": str(tmp_path / "other")}), place)
    assert before == {path: path.stat().st_mtime_ns for path in (output / "mrpc").rglob("*")}
    assert "mrpc/seed=3: " in capsys.readouterr().out


def test_a_sweep_under_torchrun_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without accelerate or torchrun"):
        sweep(recipe(place, output=str(tmp_path), sweep={"seed": [1]}), place)


def test_each_process_has_one_gpu_or_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def slots(jobs: int, name: str) -> list[str | None]:
        return [environment.get(name) for environment in _environments(jobs)]

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert slots(3, "CUDA_VISIBLE_DEVICES") == ["5", "GPU-abc", "5"]
    assert slots(3, "OMP_NUM_THREADS") == ["2"] * 3
    assert slots(1, "OMP_NUM_THREADS") == [None]  # all cores
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots(2, "CUDA_VISIBLE_DEVICES") == ["", ""]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots(3, "CUDA_VISIBLE_DEVICES") == ["0", "1", "0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert slots(2, "CUDA_VISIBLE_DEVICES") == [None, None]


# The table


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_the_spread_is_numpys(scores: list[float]) -> None:
    found = spread(scores)
    assert found["n"] == len(scores)
    wanted = [np.median(scores), np.mean(scores), np.max(scores)]
    np.testing.assert_allclose([found["median"], found["mean"], found["best"]], wanted, atol=1e-12)
    if len(scores) > 1:
        np.testing.assert_allclose(found["sd"], np.std(scores, ddof=1), atol=1e-9)
    else:
        assert found["sd"] is None


def finished(output: Path, given_: SweepRecipe, score: Callable[[Run], float]) -> list[Run]:
    """The runs as if each had ended with its score."""
    runs = plan(given_, output)
    for run in runs:
        (run.folder / "final").mkdir(parents=True)
        line = {"step": 1, "validation_accuracy": 0.0, "validation_score": score(run)}
        (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return runs


def test_the_best_setting_is_that_of_the_highest_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One lucky seed does not make a setting the best."""
    scores = {(1e-5, 1): 0.5, (1e-5, 2): 0.9, (3e-5, 1): 0.75, (3e-5, 2): 0.75}
    given_ = SweepRecipe.model_validate({"task": "rte", "sweep": {"lr": [1e-5, 3e-5], "seed": [1, 2]}})
    results = summary(finished(tmp_path, given_, lambda run: scores[run.recipe.lr, run.recipe.seed]))
    rows = {row["setting"]: row for row in results["rows"]}
    assert (rows["lr=1e-05"]["best_setting"], rows["lr=3e-05"]["best_setting"]) == (False, True)
    assert (rows["lr=1e-05"]["mean"], rows["lr=1e-05"]["best"], rows["lr=1e-05"]["n"]) == (0.7, 0.9, 2)
    assert results["average"]["with_wnli"] is results["average"]["without_wnli"] is None
    report(tmp_path, results)
    shown = capsys.readouterr().out
    assert "lr=3e-05  best" in shown and "lr=1e-05  best" not in shown and "GLUE" not in shown


def test_the_averages_are_over_the_tasks_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means = {name: (number + 1) / 10 for number, name in enumerate(NINE)}
    given_ = SweepRecipe.model_validate({"task": "all", "sweep": {"seed": [1, 2]}})
    shift = {1: -0.05, 2: 0.05}
    runs = finished(tmp_path, given_, lambda run: means[str(run.recipe.task)] + shift[run.recipe.seed])
    average = summary(runs)["average"]
    assert average["with_wnli"] == pytest.approx(np.mean(list(means.values())))
    assert average["without_wnli"] == pytest.approx(np.mean([means[name] for name in NINE if name != "wnli"]))
    report(tmp_path, summary(runs))
    assert "GLUE with WNLI: 50.0% (the mean over tasks" in capsys.readouterr().out
    without = summary([run for run in runs if run.recipe.task != "wnli"])["average"]
    assert without["with_wnli"] is None and without["without_wnli"] == average["without_wnli"]


def test_a_run_is_finished_by_its_last_line(tmp_path: Path) -> None:
    """An evaluation of an earlier epoch, or final/ before it is measured, is not the end."""
    assert figures(tmp_path) is None
    (tmp_path / "final").mkdir()
    log = tmp_path / "metrics.jsonl"
    for text, found in (
        ("", None),
        ('{"step": 1, "validation_score": 0.5}\n{"step": 2, "loss": 1.0}\n', None),
        ('{"step": 2, "loss": 1.0}\n{"step": 2, "validation_sc', None),
        ('{"step": 2, "validation_f1": 0.25, "validation_score": 0.5}\n', {"f1": 0.25, "score": 0.5}),
    ):
        log.write_text(text)
        assert figures(tmp_path) == found
    (tmp_path / "final").rmdir()
    assert figures(tmp_path) is None
