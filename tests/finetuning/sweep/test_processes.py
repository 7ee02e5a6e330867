"""Sweeps: what their processes do, what stops them and how they go on, and the tables."""

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

import fork_server
from glue_runs import finetune
from sqzb.errors import UserError
from sqzb.finetuning.submit import _best_runs
from sqzb.finetuning.sweep.plan import Run, plan
from sqzb.finetuning.sweep.processes import _environments
from sqzb.finetuning.sweep.run import sweep
from sqzb.finetuning.sweep.tables import AVERAGES, report, spread, summary
from sqzb.glue.tasks import TASKS
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.recipe import FinetuneRecipe, SweepRecipe, load_recipe, number
from sqzb.tokenizer import train_tokenizer
from stopped_runs import lines, write_task

NINE = [name for name in TASKS if name != "ax"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and the files of MRPC and RTE, and no other task's."""
    folder = tmp_path_factory.mktemp("sweep")
    tokenizer = train_tokenizer(["water river stone winter light"] * 3, 100, lowercase=True)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=32, **sizes
    )
    SqueezeBertForPreTraining(config).save_pretrained(folder / "model", tokenizer)
    write_task(folder, 40)
    (folder / "RTE").mkdir()
    rows = [
        f"{i}\twater {i}\tlight\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(40)
    ]
    for name in ("train.tsv", "dev.tsv"):
        (folder / "RTE" / name).write_text("".join(["index\tsentence1\tsentence2\tlabel\n", *rows]))
    return folder


def recipe(place: Path, **changes: Any) -> SweepRecipe:
    settings = {
        "task": "mrpc",
        "model": str(place / "model"),
        "epochs": 1,
        "batch": 8,
        "max_length": 16,
    }
    return SweepRecipe.model_validate(settings | changes)


# The processes


# A sweep whose runs come from the fork server too.
SWEEP = """
import subprocess, fork_server
subprocess.Popen = fork_server.Popen
from sqzb.cli import main
main()
"""


def start(place: Path, recipe: Path, output: Path) -> fork_server.Popen:
    arguments = [
        "--recipe",
        recipe,
        "--task",
        "mrpc,rte",
        "--model",
        place / "model",
        "--glue-dir",
        place,
    ]
    sweeping = ["--output", output, "--seeds", "2", "--jobs", "2"]
    settings = [
        "epochs=1",
        "batch=8",
        "max_length=16",
        "log_every=1",
        "checkpoint_every=20",
        "lr=1e-3",
    ]
    return fork_server.Popen(
        [sys.executable, "-c", SWEEP, "finetune", *map(str, arguments + sweeping), *settings],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until(true: Callable[[], bool], process: fork_server.Popen) -> None:
    while not true():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_stopped_and_a_killed_chain_goes_on_as_if_nothing_had_happened(
    place: Path, tmp_path: Path
) -> None:
    output, chain = tmp_path / "out", tmp_path / "chain.yaml"
    chain.write_text(
        f"stages: {{teacher: {{epochs: 40}}, with: {{teacher: teacher, first: rte}}}}\n"
        f"distillation: {{cache: {tmp_path / 'cache'}}}\n"
    )
    runs = [output / "teacher" / name / "seed=0" for name in ("mrpc", "rte")]

    process = start(place, chain, output)
    wait_until(lambda: all(len(lines(run)) > 20 for run in runs), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM
    assert (
        "SIGTERM: the sweep has stopped with 0 of 4 runs finished" in said
        and "The same command resumes the sweep" in said
    )
    assert "Traceback" not in said
    for run in runs:
        step = lines(run)[-1]["step"]
        assert step < 200 and (run / "checkpoints" / f"step-{step:07d}").is_dir()
        assert "SIGTERM: stopped after step" in run.with_name(run.name + ".log").read_text()

    before = [len(lines(run)) for run in runs]
    process = start(place, chain, output)
    wait_until(
        lambda: all(len(lines(run)) > n + 5 for run, n in zip(runs, before, strict=True)), process
    )
    process.kill()
    process.communicate()
    assert not (output / "with").exists()
    process = start(place, chain, output)  # while the killed one's runs may be at work still
    told, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Scores on validation" in told and "Means by stage" in told
    results = json.loads((output / "results.json").read_text())
    assert {Path(run["folder"]) for run in results["runs"]} == {
        *runs,
        *output.glob("with/*/seed=2"),
    }
    assert results["failed"] == [] and results["stages"].keys() == {"teacher", "with"}
    student = load_recipe(FinetuneRecipe, output / "with/mrpc/seed=2/recipe.yaml")
    assert (student.model, student.epochs) == (str(output / "with/rte/seed=2"), 1)
    assert student.distillation.teacher == (str(runs[0]),)

    wanted = load_recipe(FinetuneRecipe, runs[0] / "recipe.yaml").model_copy(
        update={"output": str(tmp_path / "whole")}
    )
    whole = finetune(wanted, place)
    assert lines(runs[0]) == lines(whole)
    final = "final/model.safetensors"
    assert (runs[0] / final).read_bytes() == (whole / final).read_bytes()


def test_a_failed_run_is_told_and_the_others_are_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(subprocess, "Popen", fork_server.Popen)
    output = tmp_path / "out"
    too_long = {"rte": {"max_length": 64}}  # for the model's 32 positions
    both = recipe(
        place,
        glue_dir=str(place),
        task="rte,mrpc",
        output=str(output),
        sweep={"seed": [3]},
        tasks=too_long,
    )
    with pytest.raises(UserError) as caught:
        sweep(both, jobs=2)
    assert "1 of 2 runs failed:\n  rte/seed=3: exit code 1" in str(caught.value)
    assert "max_length 64 is more than the model's 32 positions" in str(caught.value)
    results = json.loads((output / "results.json").read_text())
    assert results["failed"] == ["rte/seed=3"]
    (run,) = results["runs"]
    logged = lines(output / "mrpc/seed=3")[-1]
    assert (run["score"], run["f1"]) == (logged["validation_score"], logged["validation_f1"])
    assert results["rows"] == [
        {
            "task": "mrpc",
            "stage": "",
            "setting": "",
            "best_setting": True,
            **spread([logged["validation_score"]]),
        }
    ]

    # A finished run is kept as it is; another recipe is refused before anything runs.
    before = {path: path.stat().st_mtime_ns for path in (output / "mrpc").rglob("*")}
    mrpc = both.model_copy(update={"task": "mrpc"})
    assert sweep(mrpc)["runs"] == results["runs"]
    with pytest.raises(UserError, match=r"seed=3: epochs was 1, is 2\nRestore these"):
        sweep(mrpc.model_copy(update={"epochs": 2}))
    with pytest.raises(UserError, match="folder of a single run"):
        sweep(mrpc.model_copy(update={"output": str(output / "mrpc/seed=3")}))
    (tmp_path / "other/mrpc/seed=3").mkdir(parents=True)
    (tmp_path / "other/mrpc/seed=3/notes.txt").touch()
    with pytest.raises(UserError, match="seed=3 is not empty"):
        sweep(mrpc.model_copy(update={"output": str(tmp_path / "other")}))
    assert before == {path: path.stat().st_mtime_ns for path in (output / "mrpc").rglob("*")}
    assert "mrpc/seed=3: " in capsys.readouterr().out


def test_data_that_is_not_there_is_told_of_all_tasks_before_anything_runs(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE/train.tsv").write_bytes((place / "RTE/train.tsv").read_bytes())
    with pytest.raises(UserError) as caught:
        sweep(recipe(place, glue_dir=str(tmp_path), task="mrpc,rte", output=str(tmp_path / "out")))
    assert "has no folder MRPC" in str(caught.value) and "RTE/dev.tsv cannot be read" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()


STAND_IN = """#!/bin/sh
# finetune's place is taken by this: a run ends at once, with final/, where those that its recipe
# names have one.
output=$(sed -n 's/^output: //p' "$5")
echo "$output" >> {place}/order
for needed in $(sed -n 's/^model: //p; s/^  - //p' "$5"); do [ -d "$needed/final" ] || exit 9; done
grep -qx "$output" {place}/broken && echo it is broken && exit 7
mkdir -p "$output/final" && cp "$5" "$output/recipe.yaml"
echo '{{"step": 1, "validation_score": 0.5}}' > "$output/metrics.jsonl"
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that names the runs which shall fail, a line each; all others end at once."""
    (tmp_path / "model/final").mkdir(parents=True)
    (tmp_path / "stand_in").write_text(STAND_IN.format(place=tmp_path))
    (tmp_path / "stand_in").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "stand_in"))
    monkeypatch.setattr("sqzb.finetuning.sweep.processes.WAIT", 0.001)
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("breaking", "in_vain"),
    [
        ([], []),
        (["teacher/mrpc/seed=0"], ["with/mrpc/seed=1", "rte_first/mrpc/seed=1"]),
        (
            ["teacher/rte/seed=0"],
            ["rte_first/rte/seed=1", "rte_first/mrpc/seed=1", "rte_first/cola/seed=1"],
        ),
        (
            ["rte_first/rte/seed=1", "without/cola/seed=1"],
            ["rte_first/mrpc/seed=1", "rte_first/cola/seed=1"],
        ),
    ],
)
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_run_is_begun_behind_those_that_it_needs_and_not_where_they_fail(
    tmp_path: Path, broken: Path, jobs: int, breaking: list[str], in_vain: list[str]
) -> None:
    broken.write_text("".join(f"{tmp_path}/out/{name}\n" for name in breaking))
    stages = {
        "rte_first": {"teacher": "teacher", "first": "rte"},
        "without": {},
        "with": {"teacher": "teacher"},
    }
    chain = recipe(
        tmp_path,
        task="mrpc,cola",
        output=str(tmp_path / "out"),
        sweep={"seed": [1]},
        stages=stages | {"teacher": {}},
    )
    names = {run.name for run in plan(chain, tmp_path / "out")}
    assert len(names) == 3 + 3 + 2 + 2

    if breaking:
        with pytest.raises(UserError) as caught:
            sweep(chain, jobs)
        said = str(caught.value)
        assert (
            f"{len(breaking)} of 10 runs failed, and {len(in_vain)} that need them were not "
            "started:" in said
        )
        for name in breaking:
            assert f"\n  {name}: exit code 7" in said
        for name in in_vain:
            assert f"\n  {name}: not started, because it needs {tmp_path}/out/" in said
        failed = json.loads((tmp_path / "out/results.json").read_text())["failed"]
        assert sorted(failed) == sorted(breaking + in_vain)
        broken.write_text("")
    results = sweep(chain, jobs)
    assert len(results["runs"]) == 10 and results["failed"] == []
    begun = [
        str(Path(path).relative_to(tmp_path / "out"))
        for path in (tmp_path / "order").read_text().split()
    ]
    assert sorted(begun) == sorted([*names, *breaking])  # each once, but the broken ones


def test_a_run_of_two_stages_is_made_once_and_stands_in_both(tmp_path: Path, broken: Path) -> None:
    output = tmp_path / "out"
    stages = {"plain": {}, "rte_first": {"first": "rte"}}
    chain = recipe(tmp_path, task="mrpc,rte", output=str(output), stages=stages)
    broken.write_text(f"{output}/plain/rte/seed=0\n")
    with pytest.raises(UserError) as caught:
        sweep(chain)
    assert "1 of 4 runs failed, and 2 that need them were not started:" in str(caught.value)
    broken.write_text("")
    results = sweep(chain)
    assert len(results["runs"]) == 4 and results["stages"]["rte_first"]["means"].keys() == {
        "mrpc",
        "rte",
    }
    link = output / "rte_first/rte/seed=0"
    assert link.is_symlink() and not link.readlink().is_absolute()
    begun = [
        str(Path(path).relative_to(output)) for path in (tmp_path / "order").read_text().split()
    ]
    assert sorted(begun) == sorted(
        ["plain/mrpc/seed=0", *["plain/rte/seed=0"] * 2, "rte_first/mrpc/seed=0"]
    )

    (tmp_path / "order").write_text("")
    (output / "plain/rte/seed=0/metrics.jsonl").unlink()  # as a run that was stopped
    assert len(sweep(chain)["runs"]) == 4
    assert (tmp_path / "order").read_text().split() == [f"{output}/plain/rte/seed=0"]
    moved = output.rename(tmp_path / "moved")
    assert _best_runs([str(moved / "rte_first")])["rte"][1] == moved / "rte_first/rte/seed=0"


def test_a_sweep_under_torchrun_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without accelerate or torchrun"):
        sweep(recipe(place, output=str(tmp_path), sweep={"seed": [1]}))


def test_each_process_has_one_gpu_or_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_the_best_setting_is_that_of_the_highest_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One lucky seed does not make a setting the best."""
    scores = {(1e-5, 1): 0.5, (1e-5, 2): 0.9, (3e-5, 1): 0.75, (3e-5, 2): 0.75}
    given_ = SweepRecipe.model_validate(
        {"task": "rte", "sweep": {"lr": [1e-5, 3e-5], "seed": [1, 2]}}
    )
    results = summary(
        finished(tmp_path, given_, lambda run: scores[number(run.recipe.lr), run.recipe.seed])
    )
    rows = {row["setting"]: row for row in results["rows"]}
    assert (rows["lr=1e-05"]["best_setting"], rows["lr=3e-05"]["best_setting"]) == (False, True)
    assert (rows["lr=1e-05"]["mean"], rows["lr=1e-05"]["best"], rows["lr=1e-05"]["n"]) == (
        0.7,
        0.9,
        2,
    )
    assert results["average"]["with_wnli"] is results["average"]["without_wnli"] is None
    report(tmp_path, results)
    shown = capsys.readouterr().out
    assert "lr=3e-05  best" in shown and "lr=1e-05  best" not in shown and "GLUE" not in shown


def test_an_error_as_score_is_a_number_below_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given_ = SweepRecipe.model_validate(
        {"task": "stsb", "best_metric": "mae", "sweep": {"lr": [1e-5, 3e-5]}}
    )
    results = summary(finished(tmp_path, given_, lambda run: -1e6 * number(run.recipe.lr)))
    assert results["score_is_minus"] == ["mae"]
    report(tmp_path, results)
    shown = " ".join(capsys.readouterr().out.split())
    assert "(minus mae: less is better)" in shown
    assert "-10" in shown and "-30" in shown and "%" not in shown


def test_stages_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better = {"teacher": 0.3, "without": 0.0, "with": 0.1}
    stages = {"teacher": {}, "without": {}, "with": {"teacher": "teacher"}}
    values = {"task": "all", "sweep": {"lr": [1e-5, 3e-5], "seed": [1, 2]}, "stages": stages}

    def score(run: Run) -> float:
        return 0.5 + better[run.stage] + (run.recipe.lr == 1e-5) * 0.05 * (run.stage != "teacher")

    runs = finished(tmp_path, SweepRecipe.model_validate(values), score)
    results = summary(runs)
    assert [(row["task"], row["stage"], row["n"]) for row in results["rows"][:5]] == [
        ("cola", "teacher", 1),
        *[("cola", stage, 2) for stage in ("without", "without", "with", "with")],
    ]
    means = {"teacher": 0.8, "without": 0.55, "with": 0.65}
    assert list(results["stages"]) == list(means)
    for stage, mean in means.items():
        assert results["stages"][stage]["means"] == pytest.approx(dict.fromkeys(NINE, mean))
        assert results["stages"][stage]["average"]["with_wnli"] == pytest.approx(mean)
        assert results["stages"][stage]["average"]["without_wnli"] == pytest.approx(mean)
    report(tmp_path, results)
    shown = [
        line.split()
        for line in capsys.readouterr().out.replace("│", "").replace("┃", "").splitlines()
    ]
    assert ["task", "teacher", "without", "with"] in shown
    assert ["wnli", "80.0%", "55.0%", "65.0%"] in shown
    assert ["GLUE", "without", "WNLI", "80.0%", "55.0%", "65.0%"] in shown
    assert ["cola", "with", "lr=1e-05", "best", "2", "65.0%", "65.0%", "0.0%", "65.0%"] in shown
    assert ["cola", "teacher", "1", "80.0%", "80.0%", "-", "80.0%"] in shown

    some = summary([run for run in runs if run.stage != "without" or run.recipe.task == "rte"])
    assert some["stages"]["without"]["average"]["with_wnli"] is None
    report(tmp_path, some)
    shown = [
        line.split()
        for line in capsys.readouterr().out.replace("│", "").replace("┃", "").splitlines()
    ]
    assert ["wnli", "80.0%", "-", "65.0%"] in shown and [
        "GLUE",
        "with",
        "WNLI",
        "80.0%",
        "-",
        "65.0%",
    ] in shown


def test_the_averages_are_over_the_tasks_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = {name: (number + 1) / 10 for number, name in enumerate(NINE)}
    given_ = SweepRecipe.model_validate({"task": "all", "sweep": {"seed": [1, 2]}})
    shift = {1: -0.05, 2: 0.05}
    runs = finished(
        tmp_path, given_, lambda run: means[str(run.recipe.task)] + shift[run.recipe.seed]
    )
    average = summary(runs)["average"]
    assert average["with_wnli"] == pytest.approx(np.mean(list(means.values())))
    assert average["without_wnli"] == pytest.approx(
        np.mean([means[name] for name in NINE if name != "wnli"])
    )
    report(tmp_path, summary(runs))
    assert "GLUE with WNLI: 50.0% (the mean over tasks" in capsys.readouterr().out
    without = summary([run for run in runs if run.recipe.task != "wnli"])["average"]
    assert without["with_wnli"] is None and without["without_wnli"] == average["without_wnli"]


def test_more_stages_than_tasks_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"task": "sst2", "stage": "s1", "setting": "", "n": 1, "best_setting": False}
    row |= dict.fromkeys(("median", "mean", "sd", "best"), 0.1)
    stages = {
        f"s{n}": {"means": {"sst2": n / 10}, "average": dict.fromkeys(AVERAGES)}
        for n in range(1, 9)
    }
    report(Path("runs"), {"rows": [row], "stages": stages})
    told = capsys.readouterr().out.partition("Means by stage")[2].splitlines()
    assert [line.replace("│", " ").split() for line in told if "%" in line] == [
        [f"s{n}", f"{n}0.0%"] for n in range(1, 9)
    ]
