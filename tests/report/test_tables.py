"""The tables of a comparison."""

import json
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from report_runs import finetuned, pretrained
from sqzb import console
from sqzb.plan.hardware import machine
from sqzb.report.compare import print_comparison
from sqzb.report.pictures import pictures
from sqzb.report.runs import read_runs
from sqzb.report.tables import differences, results, scores


def test_recipes_are_compared_with_those_of_their_kind(tmp_path: Path) -> None:
    paths = [
        pretrained(tmp_path / "a"),
        pretrained(tmp_path / "b", steps=50),
        pretrained(tmp_path / "c", start_from="a"),
        finetuned(tmp_path / "d"),
        finetuned(tmp_path / "e", lr=1e-4),
    ]
    of_pretraining, of_finetuning = differences(read_runs([str(path) for path in paths]))
    assert of_pretraining.header == ["key", "a", "b", "c"]
    assert {row[0]: row[1:] for row in of_pretraining.rows} == {
        "start_from": ["null", "null", "a"],
        "steps": ["40", "50", "40"],
    }
    assert of_finetuning.rows == [["lr", "3e-05", "0.0001"]]


def test_equal_recipes_are_called_equal(tmp_path: Path) -> None:
    paths = [str(pretrained(tmp_path / name)) for name in "ab"]
    [table] = differences(read_runs(paths))
    assert table.rows == [] and "equal" in table.note


def test_results_have_only_rows_that_say_something(tmp_path: Path) -> None:
    paths = [str(pretrained(tmp_path / "a", evaluated=False, reached=4))]
    [table] = results(read_runs(paths), price=4.5)
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["state"] == "unfinished: step 4 of 40" and rows["time"] == "8 s"
    assert rows["cost at 4.5 an hour"] == "0.01"
    assert not {"MLM loss", "score", "resumed"} & rows.keys()


def test_results_are_by_kind(tmp_path: Path) -> None:
    paths = [finetuned(tmp_path / "a"), pretrained(tmp_path / "b"), finetuned(tmp_path / "c")]
    tables = results(read_runs([str(path) for path in paths]))
    assert [table.header for table in tables] == [["", "b"], ["", "a", "c"]]
    assert ["score", "50.0%", "50.0%"] in tables[1].rows


def test_runs_of_any_masking_are_compared_at_15_per_cent(tmp_path: Path) -> None:
    path = pretrained(tmp_path / "a")
    figures = {"step": 40, "heldout_mlm_loss": 3.0, "heldout_mlm_loss_15": 2.5}
    with (path / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(figures) + "\n")
    runs = read_runs([str(path)])
    [table] = results(runs)
    assert ["MLM loss", "3.000"] in table.rows and ["MLM loss at 15 % masks", "2.500"] in table.rows
    assert "mlm-loss-15" in {picture.name for picture in pictures(runs)["Pretraining"]}


def test_cost_is_by_the_table_of_hardware(tmp_path: Path) -> None:
    """8 devices for 7,200 seconds, at the lowest price."""
    hardware = {"device_name": "NVIDIA H100 80GB HBM3", "processes": 8}
    paths = [pretrained(tmp_path / "a", hardware=hardware), pretrained(tmp_path / "b")]
    for path in paths:
        with (path / "metrics.jsonl").open("a") as log:
            log.write('{"step": 41, "time": 7200}\n')
    [table] = results(read_runs([str(path) for path in paths]))
    lowest = min(machine("H100").device.prices, key=lambda price: price.hour)
    assert ["cost, US dollars", f"{16 * lowest.hour:,.2f}", "-"] in table.rows
    assert lowest.where in table.note and str(lowest.date) in table.note


def test_scores_have_the_spread_over_seeds(tmp_path: Path) -> None:
    values = [0.5, 0.75, 0.625]
    for seed, value in enumerate(values):
        finetuned(tmp_path / "in" / "rte" / f"lr=3e-05,seed={seed}", value, seed=seed)
        finetuned(tmp_path / f"apart{seed}", value, seed=seed)
    spread = [
        *(f"{figure(values):.1%}" for figure in (statistics.median, statistics.mean)),
        *(f"{figure(values):.1%}" for figure in (statistics.stdev, max)),
    ]
    table = scores(read_runs([str(tmp_path / "in")]))
    assert table is not None and table.rows == [["rte lr=3e-05", "3", *spread]]
    table = scores(read_runs([str(tmp_path / f"apart{seed}") for seed in range(3)]))
    assert table is not None and table.rows == [["rte apart0", "3", *spread]]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_terminal_gets_whole_tables(
    tmp_path: Path,
    n: int,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"a_run_with_a_long_name_that_needs_more_than_one_line_{i}[/b]" for i in range(n)]
    for number, name in enumerate(names):
        pretrained(tmp_path / name, steps=10 + number)
        finetuned(tmp_path / f"tuned_{name}", seed=number, lr=number + 1.0)
    monkeypatch.setattr(console, "out", Console(width=width, markup=False, emoji=False))
    print_comparison([str(tmp_path)])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown and "[/b]" in shown.replace("\n", "")
