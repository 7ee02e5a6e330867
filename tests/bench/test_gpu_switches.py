"""bench_gpu.py runs, with tiny sizes, where there is no GPU."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sqzb.corpus.build import build
from sqzb.data.dataset import Classes
from sqzb.data.own import OwnFiles, open_own
from sqzb.recipe import CorpusRecipe, Source, Vocabulary

# The scripts import each other, as Python finds them where one of them is started.
sys.path.append(str(Path(__file__).parents[2] / "scripts"))
gpu_switches, bench_gpu = map(importlib.import_module, ("gpu_switches", "bench_gpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of the script's made-up text."""
    folder = tmp_path_factory.mktemp("made")
    gpu_switches.write_text(folder / "text.jsonl", 0.3)
    recipe = CorpusRecipe(
        output=str(folder / "corpus"),
        sources={"made_up": Source(path=str(folder / "text.jsonl"))},
        vocabulary=Vocabulary(size=300),
    )
    return build(recipe, workers=1).folder


@pytest.mark.parametrize("name", bench_gpu.DEFAULT)
def test_every_section_runs(name: str, made: Path) -> None:
    given = argparse.Namespace(corpus=made, layers=1, tiny=True)
    result = bench_gpu.section(name)(given)
    json.dumps(result)
    if name == "right":
        return
    assert result["off"] > 0 and result["on"] > 0 and len(result["ratio"]) == 3
    off, on = result["losses"]
    # The same examples with the same weights: without dropout's draws the losses would be equal.
    assert off == pytest.approx(on, rel=0.05)


def test_the_table_has_at_most_40_lines_however_many_sections_ran() -> None:
    race = {"off": 2.0, "on": 1.0, "ratio": [2, 1, 3], "gigabytes": [None, 1.5], "positions": 10**6}
    report: dict[str, Any] = dict.fromkeys(gpu_switches.SWITCHES, race)
    report |= dict.fromkeys(gpu_switches.TUNINGS, race)
    report |= {"right": {"fp32 eager": 1e-6}, "skipped": {"left out": "3 s left"}}
    report |= {name: {"wall": 2.0, "places": 5} for name in bench_gpu.STEPS}
    report |= {name: {"failed": "x" * 1500} for name in (*bench_gpu.TUNE, *bench_gpu.RACES)}
    lines = bench_gpu.table(report)
    assert len(lines) <= 40 and all(len(line) <= 210 for line in lines)


def test_all_default_sections_fit_into_eight_minutes() -> None:
    """By their limits, with the time for the text; most take far less."""
    limits = [bench_gpu.limit_of(name) for name in bench_gpu.DEFAULT]
    assert sum(limits) + 30 <= 8 * 60


def test_made_up_pairs_are_labelled_data(tmp_path: Path) -> None:
    gpu_switches.write_labelled(tmp_path / "pairs.csv", 50)
    data = open_own(OwnFiles(train=(str(tmp_path / "pairs.csv"),)))
    examples, warnings = data.read("train")
    assert isinstance(data.kind, Classes) and not warnings and 30 < len(examples) <= 50


def test_what_runs_by_default_and_by_name() -> None:
    def names(**given: Any) -> list[str]:
        options = {"glue_dir": None, "vocab": None, **given}
        chosen: list[str] = bench_gpu.names(argparse.Namespace(**options))
        return chosen

    assert names(only=None) == list(bench_gpu.DEFAULT)
    unpad = ["switch unpad", "switch unpad, phase 2", "switch unpad, phase 1"]
    assert names(only=["switch unpad"]) == unpad
    assert names(only=["finetune"]) == list(gpu_switches.TUNINGS)
    assert set(names(only=["step"])) == set(bench_gpu.STEPS)
    assert not names(only=["tune"]) and names(only=["tune"], glue_dir="g", vocab="v")
