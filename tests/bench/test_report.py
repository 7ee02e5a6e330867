"""A report says what it was measured on; the benchmarks have one set of options."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from sqzb.bench import report
from sqzb.bench.report import hardware, parser, write_report


def test_a_report_has_the_figures_with_hardware_and_versions(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", seconds={"ours": [1.5, 2.0]})
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["seconds"] == {"ours": [1.5, 2.0]}
    assert written["hardware"] == hardware()
    assert written["versions"]["torch"] == version("torch")
    assert written["written"].endswith("+00:00")


def test_a_library_that_is_absent_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LIBRARIES", ("torch", "no-such-library"))
    write_report(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["versions"] == {"torch": version("torch")}


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(None, seconds=1.0)
    assert list(tmp_path.iterdir()) == []


def test_hardware_is_the_gpu_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA X")
    assert hardware() == "NVIDIA X"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert hardware().startswith("3 cores of ")


def test_the_options_of_a_race(tmp_path: Path) -> None:
    given = parser("What it measures.", rounds=5).parse_args([])
    assert (given.rounds, given.json) == (5, None)
    given = parser("", rounds=5).parse_args(["--rounds", "2", "--json", str(tmp_path)])
    assert (given.rounds, given.json) == (2, tmp_path)


def test_a_script_without_a_race_has_no_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("First line.\n\n    python scripts/x.py").parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "First line.\n\n    python scripts/x.py" in shown and "--rounds" not in shown
