"""Data of the user's own, as `sqzb finetune --train` and `sqzb eval` take it."""

import csv
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

import fork_server
from conftest import WORDS
from glue_runs import finetune as finetune_glue
from glue_runs import tiny
from sqzb.cli import app
from sqzb.errors import UserError, explain
from sqzb.evaluate import evaluate_task
from sqzb.finetuning import job
from sqzb.finetuning.data import open_data, read_known
from sqzb.finetuning.finetuned import data_for
from sqzb.finetuning.sweep.run import sweep
from sqzb.model import SqueezeBertForPreTraining
from sqzb.model.checkpoint import read_tensors
from sqzb.recipe import FinetuneRecipe, SweepRecipe, load_recipe
from sqzb.tokenizer import train_tokenizer
from sqzb.training.run_folder import KNOWN, final_figures

N = 48
Row = tuple[str, str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("model") / "pretrained"
    tokenizer = train_tokenizer([" ".join(WORDS)] * 2, 200, lowercase=True)
    SqueezeBertForPreTraining(tiny(tokenizer.get_vocab_size())).save_pretrained(folder, tokenizer)
    return folder


def rows(first: int = 0) -> list[Row]:
    """Return pairs of texts with a label, 0 or 1."""
    made = []
    for n in range(first, first + N):
        word = WORDS[n % len(WORDS)]
        made.append((f"{word} {'river' if n % 2 else 'stone'}", f"{word} light {n}", str(n % 2)))
    return made


def write_csv(path: Path, header: Sequence[str], content: Sequence[Sequence[str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *content])
    return str(path)


def write_glue(folder: Path) -> Path:
    """Write the rows as GLUE's MRPC, and return the folder for --glue-dir."""
    mrpc = folder / "glue" / "MRPC"
    mrpc.mkdir(parents=True)
    for name, first in (("train.tsv", 0), ("dev.tsv", N)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f"{label}\t0\t0\t{one}\t{two}" for one, two, label in rows(first)]
        (mrpc / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return mrpc.parent


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Training and validation files in CSV, whose columns have names of their own."""
    header = ("one", "two", "verdict")
    return {
        "train": write_csv(tmp_path / "pairs.csv", header, rows()),
        "validation": write_csv(tmp_path / "more.csv", header, rows(N)),
    }


def recipe(model: Path, output: Path, **changes: object) -> FinetuneRecipe:
    settings = {"model": str(model), "output": str(output), "batch": 8, "lr": 1e-2, "epochs": 2}
    return FinetuneRecipe.model_validate(settings | {"max_length": 16} | changes)


def own(files: dict[str, str], **changes: object) -> dict[str, object]:
    return {"text": ["one", "two"], "label": "verdict"} | files | changes


def run(recipe: FinetuneRecipe, resume: str = "never") -> Path:
    return job.finetune(recipe, open_data(recipe), resume)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "final")


def test_a_glue_task_in_csv_gives_the_numbers_of_the_task(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    glue = write_glue(tmp_path)
    of_task = finetune_glue(recipe(model, tmp_path / "task", task="mrpc"), glue)
    of_file = run(recipe(model, tmp_path / "file", data=own(files)))

    expected, found = weights(of_task), weights(of_file)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    figures, own_figures = final_figures(of_task), final_figures(of_file)
    assert figures is not None and own_figures is not None
    assert own_figures["accuracy"] == figures["accuracy"]


def test_a_run_remembers_its_data_and_eval_needs_nothing_more(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    del files["validation"]
    folder = run(recipe(model, tmp_path / "run", data=own(files)))
    known = read_known(folder)
    assert known is not None and known == read_known(folder / "final")
    assert (known.text, known.label, known.kind.names) == (("one", "two"), "verdict", ("0", "1"))

    inside_a_file = str(folder / "recipe.yaml" / "figures.json")
    ended = CliRunner().invoke(app, ["eval", str(folder), "--json", inside_a_file])
    assert isinstance(ended.exception, OSError)
    assert "recipe.yaml cannot be used: a file" in explain(ended.exception)

    figures = evaluate_task(str(folder), data_for(str(folder), None, None), "validation")
    final = final_figures(folder)
    assert final is not None and figures["macro_f1"] == pytest.approx(final["macro_f1"])

    # The held-out examples are those of the run, by the file's content, wherever the file is now.
    Path(files["train"]).unlink()
    with pytest.raises(UserError, match=r"pairs\.csv.*--train"):
        data_for(str(folder), None, None).read("validation")


def test_other_files_are_scored_with_the_runs_labels_and_columns(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    folder = str(run(recipe(model, tmp_path / "run", data=own(files))))
    again = evaluate_task(folder, data_for(folder, None, None, [files["validation"]]), "validation")
    final = final_figures(Path(folder))
    assert final is not None and again["accuracy"] == pytest.approx(final["accuracy"])
    assert again["task"] == files["validation"]  # and not the name of the training data

    renamed = write_csv(tmp_path / "renamed.csv", ("a", "b", "c"), rows(N))
    with pytest.raises(UserError, match="has no column 'one'"):
        data_for(folder, None, None, [renamed]).read("validation")
    data = data_for(folder, None, None, [renamed], ["a", "b"], "c")
    assert evaluate_task(folder, data, "validation")["accuracy"] == again["accuracy"]

    strange = write_csv(tmp_path / "strange.csv", ("one", "two", "verdict"), [("a", "b", "2")])
    with pytest.raises(UserError, match=r"strange\.csv:2.*'2'"):
        data_for(folder, None, None, [strange]).read("validation")
    with pytest.raises(UserError, match=r"no file.* with --data"):
        data_for(folder, None, None, ["absent.csv"]).read("validation")
    with pytest.raises(UserError, match=r"no test split\..*--data FILE"):
        evaluate_task(folder, data, "test")
    with pytest.raises(UserError, match="--data is for a run on data of your own"):
        data_for(str(model), None, None, [strange])
    (Path(folder) / KNOWN).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.json cannot be read"):
        data_for(folder, None, None)


def test_auto_settings_are_resolved_and_a_resumed_run_has_the_same(
    model: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"epochs": "auto", "lr": "auto", "max_length": "auto", "batch": 32}
    auto = recipe(model, tmp_path / "run", data=own(files), **changes)
    folder = run(auto)
    resolved = load_recipe(FinetuneRecipe, folder / "recipe.yaml")
    assert (resolved.epochs, resolved.lr, resolved.max_length) == (20, 1e-3, 16)
    printed = capsys.readouterr().out
    assert "text: one,two\n" in printed and "label: verdict\n" in printed
    assert "20 epochs" in printed and "max_length 16 cuts 0.0% of the examples" in printed

    before = weights(folder)
    run(auto, "auto")
    moved = tmp_path / "elsewhere.csv"
    Path(files["train"]).rename(moved)
    run(
        auto.model_copy(update={"data": auto.data.model_copy(update={"train": (str(moved),)})}),
        "auto",
    )
    after = weights(folder)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    content = moved.read_text(encoding="utf-8").replace("river", "water", 1)
    moved.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="the training set"):
        run(
            auto.model_copy(update={"data": auto.data.model_copy(update={"train": (str(moved),)})}),
            "auto",
        )


def test_a_sweep_runs_own_data_with_several_seeds(
    model: Path, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(subprocess, "Popen", fork_server.Popen)
    output = tmp_path / "sweep"
    given = recipe(model, output, data=own(files), epochs=1).model_dump()
    given |= {"max_length": "auto", "sweep": {"seed": [1, 2]}}
    results = sweep(SweepRecipe.model_validate(given))
    assert [run["task"] for run in results["runs"]] == ["pairs", "pairs"]
    assert {path.name for path in (output / "pairs").glob("seed=*/")} >= {"seed=1", "seed=2"}
    assert json.loads((output / "results.json").read_text())["rows"][0]["n"] == 2
    again = sweep(SweepRecipe.model_validate(given))  # finds its runs, whose recipes are resolved
    assert again["runs"] == results["runs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "mrpc"}, "task: is for GLUE, and data.train"),
        ({"data": {"label": "x"}}, "data.label: has no effect without data.train"),
        ({"data": {"train": "a.csv", "text": "a,b,c"}}, "data.text: is 3 columns"),
        ({"data": {"train": "a.csv", "validation": "b.csv", "holdout": 0.2}}, "data.holdout: has"),
        ({"tasks": {"rte": {"epochs": 3}}}, "tasks: is for GLUE"),
    ],
)
def test_keys_without_effect_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({"data": {"train": "a.csv"}} | changes), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_recipe(SweepRecipe, file)
    assert f"\n  {message}" in str(caught.value)


def test_another_metric_may_choose_the_best(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    wanted = recipe(model, tmp_path / "run", data=own(files), best_metric="accuracy", epochs=1)
    figures = final_figures(run(wanted))
    assert figures is not None and figures["score"] == figures["accuracy"]
    with pytest.raises(UserError, match="best_metric=rmse: pairs is measured by macro_f1"):
        open_data(recipe(model, tmp_path / "run", data=own(files), best_metric="rmse"))


def test_a_run_on_a_task_may_teach_own_data(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """The teacher was finetuned by `--task mrpc`; the student's labels have the same names."""
    glue = write_glue(tmp_path)
    teacher = finetune_glue(recipe(model, tmp_path / "teacher", task="mrpc", epochs=1), glue)

    names = ("not_equivalent", "equivalent")
    named = [(one, two, names[int(label)]) for one, two, label in rows()]
    content = write_csv(tmp_path / "named.csv", ("one", "two", "verdict"), named)
    distillation = {"teacher": str(teacher), "cache": str(tmp_path / "cache")}
    data = {"train": content, "text": ["one", "two"], "label": "verdict"}
    output = tmp_path / "student"
    student = recipe(model, output, data=data, distillation=distillation, epochs=1)
    assert final_figures(run(student)) is not None


def test_a_users_file_beside_a_saved_model_is_not_a_runs_memory(tmp_path: Path) -> None:
    (tmp_path / KNOWN).write_text('[{"text": "a", "label": "b"}]', encoding="utf-8")
    (tmp_path / "model").mkdir()
    assert read_known(tmp_path / "model") is None


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_shows_the_plan_of_the_run_and_writes_nothing(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["finetune", "--text", "one,two", "--label", "verdict", "--model", str(model)]
    for option, path in files.items():
        arguments += [f"--{option}", path]
    arguments += ["--output", str(tmp_path / "run"), "epochs=1", "batch=8", "checkpoint_every=99"]
    before = content_of(tmp_path)
    planned = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert content_of(tmp_path) == before
    text = " ".join(planned.output.split())
    assert f"pairs: {N} training and {N} validation examples, 1 epoch of 6 steps" in text
    assert "max_length 16 (chosen)" in text and "rate 0.001 (chosen)" in text

    # The plan is what the run prints first.
    trained = CliRunner().invoke(app, arguments)
    assert trained.exit_code == 0 and trained.output.startswith(planned.output)
    refused = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert isinstance(refused.exception, UserError) and "--resume auto" in str(refused.exception)

    other = [*arguments, "--dry-run", "--output", str(tmp_path / "other"), "max_length=9999"]
    refused = CliRunner().invoke(app, other)
    assert "max_length 9999" in str(refused.exception)


def test_the_plan_names_the_precision_of_a_gpu_that_has_bf16(
    model: Path, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["finetune", "--train", files["train"], "--text", "one,two", "--label", "verdict"]
    arguments += ["--model", str(model), "--output", str(tmp_path / "run"), "--dry-run"]
    texts = []
    for has_bf16 in (False, True):
        precision = "bf16" if has_bf16 else "fp32"
        monkeypatch.setattr("sqzb.finetuning.job.chosen_precision", lambda _, it=precision: it)
        AcceleratorState._reset_state(reset_partial_state=True)
        planned = CliRunner().invoke(app, arguments)
        assert planned.exit_code == 0, planned.output
        texts.append(" ".join(planned.output.split()))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert "FLOP in fp32" in texts[0] and "bf16" not in texts[0]
    assert "FLOP in bf16" in texts[1] and "on cpu in bf16" in texts[1]
    assert "Precision bf16, because this GPU has it (precision=fp32 for fp32)" in texts[1]


def test_a_dry_run_of_several_runs_lists_them_and_plans_the_first(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["finetune", "--text", "one,two", "--label", "verdict", "--model", str(model)]
    arguments += ["--train", files["train"], "--output", str(tmp_path / "runs"), "--seeds", "1,2"]
    before = content_of(tmp_path)
    planned = CliRunner().invoke(app, [*arguments, "--dry-run", "epochs=1"])
    assert planned.exit_code == 0, planned.output
    assert content_of(tmp_path) == before
    text = " ".join(planned.output.split())
    assert "2 runs in" in text and text.count("to do") == 2
    assert "seed=1:" in text and "rate 0.001 (chosen), seed 1 " in text

    missing = CliRunner().invoke(app, [*arguments, "--dry-run", "--model", str(tmp_path / "none")])
    assert "There is no folder" in str(missing.exception)


def test_labelled_test_files_have_figures_that_choose_nothing(
    model: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = run(recipe(model, tmp_path / "without", data=own(files)))
    test = write_csv(tmp_path / "test.csv", ("one", "two", "verdict"), rows(2 * N)[:7])
    capsys.readouterr()
    folder = run(recipe(model, tmp_path / "run", data=own(files, test=test)))
    printed = capsys.readouterr().out
    assert "│ test       │        7 │" in printed
    assert "test (7)" in printed and "not used to train or to choose the model" in printed
    assert all(torch.equal(weights(without)[name], w) for name, w in weights(folder).items())

    evaluation = json.loads((folder / "evaluation.json").read_text())
    again = evaluate_task(str(folder), data_for(str(folder), None, None), "test")
    for name, value in evaluation["test"].items():
        assert again[name] == pytest.approx(value)
    assert evaluation["splits"]["test"]["examples"] == 7
    scored = evaluate_task(str(folder), data_for(str(folder), None, None, [test]), "validation")
    assert scored["accuracy"] == pytest.approx(evaluation["test"]["accuracy"])


def test_test_files_without_labels_are_predicted(
    model: Path, files: dict[str, str], tmp_path: Path
) -> None:
    unlabelled = [row[:2] for row in rows(2 * N)[:7]]
    test = write_csv(tmp_path / "test.csv", ("one", "two"), unlabelled)
    folder = run(recipe(model, tmp_path / "run", data=own(files, test=test), epochs=1))
    assert "test" not in json.loads((folder / "evaluation.json").read_text())
    found = evaluate_task(str(folder), data_for(str(folder), None, None), "test")
    assert len(found["splits"]["test"]["predictions"]) == 7
