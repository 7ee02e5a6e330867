"""sqzb bench from the command line: tables that fit, JSON with all cells, a picture, errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from export_runs import need
from own_runs import write_own
from saved_runs import save_run
from small_bert import SIZES
from sqzb.bench import contestants
from sqzb.bench.latency import bench
from sqzb.bench.results import Wanted
from sqzb.cli import app
from sqzb.data.own import open_own
from sqzb.errors import UserError
from sqzb.export.job import Wanted as WantedExport
from sqzb.export.job import export
from sqzb.finetuning.data import write_known
from sqzb.recipe import FinetuneRecipe, dump_recipe


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bert-base be tiny, and the terminal have 80 columns."""
    monkeypatch.setattr(contestants, "BERT_SIZES", SIZES)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)


def own_run(folder: Path, vocabulary: Path) -> Path:
    """A run with random weights on own data with validation labels."""
    files = write_own(folder / "data", "classes")
    saved = save_run(folder / "run", vocabulary, ("low", "mid", "top"))
    recipe = FinetuneRecipe.model_validate(
        {"data": {"train": list(files.train), "validation": list(files.validation)}}
    )
    (saved / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    write_known(saved, open_own(files).known)
    return saved


def lines_of_tables(text: str) -> list[str]:
    """The lines of the report, without those of the progress."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Machine"))
    return lines[first:]


def test_runtimes_are_measured_on_labelled_texts(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)  # a long path is no line of 80 columns
    saved = own_run(Path(), vocabulary)
    report, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    arguments = [saved, "--runtimes", "torch,onnx", "--rounds", 2, "--json", report]
    arguments += ["--precisions", "fp32,int8", "--data", "data/classes_1.jsonl"]
    ended = run(*arguments, "--picture", picture)
    assert ended.exit_code == 0
    assert max(map(len, lines_of_tables(ended.stdout))) <= 80, ended.stdout

    written = json.loads(report.read_text(encoding="utf-8"))
    cells = {(cell["runtime"], cell["precision"]): cell for cell in written["cells"]}
    assert list(cells) == [("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")]
    for cell in cells.values():
        assert cell["error"] is None
        assert 0 < cell["p50_ms"] <= cell["p90_ms"]
        assert cell["cpu_ms"] > 0 and cell["texts_per_second"] > 0
        assert cell["disk_bytes"] > 0 and cell["peak_bytes"] > 10**7
        assert len(cell["turn_ms"]) == 2
        assert 0 < cell["metrics"]["accuracy"] <= 1
    exact = [cells[kind]["metrics"] for kind in (("torch", "fp32"), ("onnx", "fp32"))]
    assert exact[0] == pytest.approx(exact[1])
    assert picture.read_text(encoding="utf-8").count("<svg") == 1
    with pytest.raises(UserError, match="--overwrite"):
        run(*arguments)


def test_both_forms_of_bert_are_compared_and_a_cell_that_fails_is_named(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    def fail(*given: Any) -> None:
        raise ValueError("no such operator")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fail)
    saved, report = save_run(tmp_path / "run", vocabulary), tmp_path / "bench.json"
    # Not torch, whose processes take several times as long to start.
    arguments = [saved, "--against", "bert-base", "--runtimes", "onnx", "--json", report]
    ended = run(*arguments, "--rounds", 2, "--length", 9, "--batch", 2)
    assert ended.exit_code == 0
    shown = lines_of_tables(ended.stdout)
    assert max(map(len, shown)) <= 80, ended.stdout
    assert "onnx int8, bert-base, as usual failed: no such operator" in ended.stderr

    written = json.loads(report.read_text(encoding="utf-8"))
    assert [one["weights"] for one in written["contestants"]] == [str(saved), "random", "random"]
    failed = [cell for cell in written["cells"] if cell["error"] is not None]
    assert [(cell["model"], cell["precision"]) for cell in failed] == [
        ("bert-base, as usual", "int8")
    ]
    pairs = [(ratio["against"], ratio["precision"]) for ratio in written["ratios"]]
    assert pairs == [
        ("bert-base, as usual", "fp32"),
        ("bert-base, same care", "fp32"),
        ("bert-base, same care", "int8"),
    ]
    for ratio in written["ratios"]:
        times = ratio["times_as_fast"]
        assert ratio["share_of_ceiling"] == pytest.approx(times["middle"] / ratio["ceiling"])
        spread = f"({times['lowest']:.2f} to {times['highest']:.2f})"
        assert any(f"{times['middle']:.2f} {spread}" in line for line in shown)


def test_an_export_has_one_cell(vocabulary: Path, tmp_path: Path) -> None:
    need("openvino")
    saved = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    folder = tmp_path / "exported"
    export(WantedExport(str(saved), "openvino", "fp32", None, folder))
    results = bench(Wanted(str(folder), runtimes=["openvino"], length=5, rounds=1))
    (entry,) = results.entries
    assert entry.error is None and entry.key == ("openvino", "fp32")
    with pytest.raises(UserError, match="an export for openvino in fp32"):
        bench(Wanted(str(folder), runtimes=["torch"], length=5))


def test_bad_input_is_refused_before_any_measurement(vocabulary: Path, tmp_path: Path) -> None:
    saved = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    (tmp_path / "texts.txt").write_text("the letter\n")
    wanted = Wanted(str(saved), runtimes=["torch"])
    with pytest.raises(UserError, match="longer than the 32 positions of run"):
        bench(wanted._replace(length=33))
    with pytest.raises(UserError, match="There is no folder"):
        bench(wanted._replace(against=str(tmp_path / "nowhere")))
    picture = ["--picture", tmp_path / "a.svg", "--data", tmp_path / "texts.txt"]
    with pytest.raises(UserError, match="cannot be measured on these texts"):
        run(saved, "--runtimes", "torch", *picture)
    for arguments, problem in (
        (["--length", 5, "--task", "mrpc"], "--length is for random tokens"),
        (["--picture", "a.svg"], "--picture draws accuracy"),
        (["--text", "a"], "--text and --label name columns"),
    ):
        ended = run(saved, *arguments)
        assert ended.exit_code == 2 and problem in " ".join(ended.stderr.split())
