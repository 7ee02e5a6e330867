"""The command line before anything heavy is loaded: help, versions, wrong arguments, wrong
recipes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import fork_server
from sqzb import __version__
from sqzb.cli import app
from sqzb.errors import UserError

HEAVY = ("torch", "numpy", "accelerate", "datasets", "tokenizers", "pyarrow")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-m", "sqzb", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=60,
    )


# A Python that has loaded nothing but the command line becomes each command once, as a copy that
# says at its end whether the command came to its arguments, and what is loaded.
LOADED = """
import json, os, sys
from sqzb.cli import main
for arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.argv = ["sqzb", *arguments]
        try:
            main()
        except SystemExit:
            print(*sys.modules, file=sys.stderr, flush=True)
        os._exit(0)
    os.wait()
"""
LIGHT = [
    ["--help"],
    ["pretrain", "--help"],
    ["pretrain", "no-such.yaml"],
    ["prepare-corpus", "no-such.yaml"],
    ["prepare-corpus"],
    ["prepare-corpus", "a.yaml", "--verify", "b"],
    ["inspect-corpus", "--help"],
    ["recipes"],
    ["recipes", "keys", "finetune"],
    ["pretrain", "phase1_128", "--steps", "10"],
    ["finetune"],
    ["finetune", "--task", "mrcp"],
]


def test_nothing_heavy_is_loaded_before_the_arguments_are_good() -> None:
    command = [sys.executable, "-c", LOADED, json.dumps(LIGHT)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    loaded = [set(line.split()) for line in told.splitlines() if "sqzb.cli" in line.split()]
    assert len(loaded) == len(LIGHT)
    assert [names & set(HEAVY) for names in loaded] == [set()] * len(LIGHT)


def test_help_names_every_command_and_debug() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for name in (
        "prepare-corpus",
        "inspect-corpus",
        "pretrain",
        "finetune",
        "eval",
        "predict",
        "fill-mask",
        "recipes",
        "--debug",
    ):
        assert name in ended.stdout


def commands(path: str = "", command: Any = None) -> Iterator[str]:
    """Yield the words of each command behind sqzb."""
    yield path
    for name, inner in getattr(command or typer.main.get_command(app), "commands", {}).items():
        yield from commands(f"{path} {name}".strip(), inner)


@pytest.mark.parametrize("command", commands())
def test_help_fits_a_terminal_or_has_panels(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout.strip()
    panels = [line for line in shown.splitlines() if line.startswith("╭")]
    assert len(shown.splitlines()) <= 24 or len(panels) >= 3
    longest_panel = max(part.count("\n") for part in shown.split("╭"))
    assert longest_panel <= 16


def test_version() -> None:
    assert run("--version").stdout.strip() == f"sqzb {__version__}"


def test_a_wrong_recipe_lists_everything_and_ends_with_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "corpus: nowhere\nseqence_length: 128\nglobal_batch: 30\nmicro_batch: 7\nsteps: many\n"
        "model: {hidden_size: 130, max_position_embeddings: 64}\n"
    )
    ended = run("pretrain", str(recipe), "optimizer.warmup=2")
    assert ended.returncode == 2
    for problem in (
        "seqence_length: unknown key; did you mean sequence_length?",
        "steps: should be a valid integer, not 'many'",
        "optimizer.warmup: should be less than 1, not 2",
        "micro_batch: 7 does not divide global_batch = 30",
        "model.q_groups: 4 does not divide hidden_size = 130",
    ):
        assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(place: str) -> None:
    command = ["pretrain", "no-such.yaml"]
    ended = run(*(["--debug", *command] if place == "before" else [*command, "--debug"]))
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "no-such.yaml" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain"],
        ["nonsense"],
        ["eval"],
        ["eval", "x", "--nonsense"],
        ["finetune"],
        ["finetune", "--task", "mrcp"],
        ["finetune", "--task", "mrpc,rte", "--task", "mrpc,mrcp"],
        ["finetune", "--task", "mrpc", "--seeds", "1,x"],
        ["finetune", "--task", "mrpc", "--jobs", "2"],
        ["finetune", "--task", "mrpc", "--seeds", "1,2", "--extend"],
        ["predict", "x"],
        ["predict", "x", "a", "--file", "b"],
        ["predict", "x", "a", "b", "c"],
        ["predict", "x", "a", "--output", "out.csv"],
        ["predict", "x", "a", "--text", "review"],
        ["predict", "x", "--file", "b", "--output", "out.csv", "--json"],
        ["predict", "x", "--file", "b", "--file", "c"],
        ["predict", "x", "--file", "b", "--executor", "ray"],
        ["fill-mask", "x"],
        ["eval", "x", "y"],
        ["eval", "x", "--split", "train"],
        ["eval", "x", "--split", "test"],
        ["eval", "x", "--json", "."],
        ["eval", "x", "--submission", "glue.zip", "--task", "rte"],
        ["prepare-corpus"],
        ["prepare-corpus", "a.yaml", "--verify", "b"],
        ["prepare-corpus", "a.yaml", "--executor", "nobody"],
        ["inspect-corpus"],
        ["inspect-corpus", "x", "--length", "7"],
        ["inspect-corpus", "x", "--n", "0"],
        ["recipes", "keys"],
        ["recipes", "show", "nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["pretrain", "phase1_128", "--steps", "10"],
            "no such option: --steps. Recipe keys have no dashes: steps=10",
        ),
        (
            ["pretrain", "phase1_128", "--steps=10"],
            "no such option: --steps. Recipe keys have no dashes: steps=10",
        ),
        (["pretrain", "--lr", "1e-3", "phase1_128"], "no dashes: optimizer.lr=1e-3"),
        (["finetune", "--batch-size", "3", "--task", "mrpc"], "no dashes: batch=VALUE"),
        (["prepare-corpus", "corpus", "--heldout"], "no dashes: heldout=VALUE"),
        (["finetune", "--task", "mrpc", "--seeds", "1 2"], "such as 1,2,3; not '1 2'"),
        (["finetune", "--task", "mrpc", "--resume"], "give --resume auto"),
        (["predict", "model", "--file", "."], "several files need --output FOLDER"),
        (["eval", "run", "--split", "test"], "that have labels, give --data FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_is_answered_with_the_way_to_write_it(
    arguments: list[str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2 and answer in ended.output


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[1] / "recipes"
    ended = CliRunner().invoke(app, ["recipes"])
    assert ended.exit_code == 0 and ended.stdout.count("\n") == len(list(recipes.iterdir()))
    shown = CliRunner().invoke(app, ["recipes", "show", "corpus"]).stdout
    assert shown == (recipes / "corpus.yaml").read_text()
    target = tmp_path / "mine.yaml"
    assert CliRunner().invoke(app, ["recipes", "copy", "corpus", str(target)]).exit_code == 0
    assert target.read_text() == shown
    refused = CliRunner().invoke(app, ["recipes", "copy", "corpus", str(target)])
    assert isinstance(refused.exception, UserError) and "exists" in str(refused.exception)
    keys = CliRunner().invoke(app, ["recipes", "keys", "pretrain"]).stdout
    assert "optimizer.lr=0.0025  (number, over 0)" in keys
