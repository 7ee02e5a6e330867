"""The end of a command: time, price, and commands that can be typed."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sqzb.cli.commands import app
from sqzb.cli.prepare_corpus import _next_commands
from sqzb.corpus.store import Corpus
from sqzb.plan.hardware import devices
from sqzb.pretraining.report import print_next_commands
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training.ending import cost_sentences, print_ending
from sqzb.training.run_folder import METRICS, RUN

H100 = "NVIDIA H100 80GB HBM3"


def write(folder: Path, seconds: float, name: str | None, processes: int = 1) -> Path:
    folder.mkdir()
    (folder / METRICS).write_text(json.dumps({"step": 5, "time": seconds}) + "\n")
    hardware = {"device_name": name, "processes": processes}
    (folder / RUN).write_text(json.dumps({"hardware": hardware}))
    return folder


def test_the_price_is_the_lowest_list_price_of_all_devices(tmp_path: Path) -> None:
    (device,) = [device for device in devices() if device.cuda == H100]
    lowest = min(price.hour for price in device.prices)
    run = write(tmp_path / "one", 7200, H100, 8)
    (sentence,) = cost_sentences([run])
    assert sentence.startswith("Training took 2 h 00 min, about ")
    assert f"about {2 * 8 * lowest:,.2f} US dollars at list price ({lowest:g} an hour" in sentence
    (both,) = cost_sentences([run, write(tmp_path / "two", 3600, H100, 1)])
    assert f"3 h 00 min, about {17 * lowest:,.2f} US dollars" in both


@pytest.mark.parametrize("name", [None, "A GPU of tomorrow"])
def test_hardware_without_a_price_has_time_alone(tmp_path: Path, name: str | None) -> None:
    run, priced = write(tmp_path / "one", 62, name), write(tmp_path / "two", 1, H100)
    assert cost_sentences([run]) == ["Training took 1 min 02 s."]
    assert cost_sentences([run, priced]) == ["Training took 1 min 03 s."]


@pytest.mark.parametrize("damage", ["", "[]", '{"hardware": 3}', "{"])
def test_a_damaged_run_has_no_price(tmp_path: Path, damage: str) -> None:
    run = write(tmp_path / "one", 5, H100)
    (run / RUN).write_text(damage)
    assert cost_sentences([run]) == ["Training took 5 s."]
    (run / METRICS).unlink()
    assert cost_sentences([run]) == []


def commands(text: str) -> list[list[str]]:
    """Return the words of each command behind `Next:`."""
    lines = text.partition("Next:\n")[2].splitlines()
    assert all(line.startswith("  sqzb ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_odd_folders_are_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a run's [folder]"
    print_ending(run / "final", [], ["sqzb", "report", run])
    shown = capsys.readouterr().out
    assert f"The model is in {run / 'final'}." in shown
    assert commands(shown) == [["report", str(run)]]


@pytest.mark.parametrize(
    ("folder", "lengths", "positions", "second"),
    [
        ("runs/phase1_128", [128, 512], 512, ["phase2_512"]),
        ("runs/small_phase1", [128], 128, ["small_phase2"]),
        ("runs/trial", [128, 512], 512, ["phase2_512", "start_from=runs/trial"]),
        ("runs/trial", [128], 512, None),
        ("runs/trial", [128, 512], 128, None),
    ],
)
def test_after_pretraining(
    folder: str,
    lengths: list[int],
    positions: int,
    second: list[str] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = cast(Corpus, SimpleNamespace(manifest={"sequence_lengths": lengths}))
    print_next_commands(Path(folder), PretrainRecipe(), corpus, positions)
    found = {command[0]: command[1:] for command in commands(capsys.readouterr().out)}
    expected = {"fill-mask", "finetune", "report"} | ({"pretrain"} if second else set())
    assert found.keys() == expected
    if second is not None:
        assert found["pretrain"][: len(second)] == second
        check_recipe(found["pretrain"])
    assert "[MASK]" in found["fill-mask"][1]


def check_recipe(words: list[str]) -> PretrainRecipe:
    recipe, *changes = words
    return load_recipe(PretrainRecipe, Path(recipe), [word for word in changes if "=" in word])


@pytest.mark.parametrize(
    ("folder", "lengths"),
    [("data/corpus", [128, 512]), ("runs/demo/corpus", [64]), ("x y", [128]), ("new", [16, 64])],
)
def test_after_a_corpus(folder: str, lengths: list[int]) -> None:
    inspect, plan, train = ([*shlex.split(line)[1:]] for line in _next_commands(folder, lengths))
    assert inspect == ["inspect-corpus", folder] and plan[1:] == train[1:]
    recipe = check_recipe(train[1:])
    assert recipe.corpus == folder
    assert folder.startswith("runs/demo") or recipe.sequence_length in lengths


def test_every_command_that_is_named_exists() -> None:
    names: Any = {command.name for command in app.registered_commands}
    assert {"report", "fill-mask", "finetune", "pretrain", "inspect-corpus", "plan"} <= names
