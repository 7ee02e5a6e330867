"""Completion in a shell: commands, recipes, tasks and runs, without heavy libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from report_runs import finetuned, pretrained
from sqzb.cli import app, completion
from sqzb.cli.completion import complete_recipe, complete_run, complete_tasks
from sqzb.glue.tasks import TASKS
from sqzb.recipe.shipped import names


def test_recipes_are_those_that_come_with_sqzb() -> None:
    assert complete_recipe("") == names()
    assert complete_recipe("phase") == ["phase1_128", "phase2_512"]
    assert complete_recipe("./mine") == []


def test_tasks_are_completed_one_by_one() -> None:
    assert complete_tasks("") == [*TASKS, "all"]
    assert complete_tasks("mr") == ["mrpc"]
    assert complete_tasks("mrpc,r") == ["mrpc,rte"]
    assert "mrpc,mrpc" not in complete_tasks("mrpc,") and "mrpc,all" not in complete_tasks("mrpc,")


def test_runs_are_found_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained(tmp_path / "runs" / "phase1")
    finetuned(tmp_path / "runs" / "glue" / "rte" / "seed-1")
    finetuned(tmp_path / ".hidden" / "one")
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    both = ["runs/glue/rte/seed-1", "runs/phase1"]
    assert complete_run("") == complete_run("ru") == complete_run("runs/") == both
    assert complete_run("runs/p") == ["runs/phase1"]
    assert complete_run(f"{tmp_path}/runs/p") == [f"{tmp_path}/runs/phase1"]
    assert complete_run("nowhere/x") == []
    monkeypatch.setattr(completion, "MOST_FOLDERS", 1)
    assert complete_run("") == []  # nobody waits for a large tree


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sqzb fin", ["finetune"]),
        ("sqzb pretrain phase1", ["phase1_128"]),
        ("sqzb finetune --task mnl", ["mnli"]),
        ("sqzb eval ru", ["runs/one"]),
        ("sqzb report runs/one ru", ["runs/one"]),
        ("sqzb finetune --model ru", ["runs/one"]),
        ("sqzb recipes show phase2", ["phase2_512"]),
    ],
)
def test_bash_is_answered(
    tmp_path: Path, typed: str, completed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path)
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    environment = {**words, "_SQZB_COMPLETE": "complete_bash"}
    ended = CliRunner().invoke(app, [], prog_name="sqzb", env=environment)
    assert ended.output.split() == completed


def test_the_command_answers_and_loads_nothing_heavy() -> None:
    """Each press of the key starts a process."""
    code = "import sys; sys.argv = ['sqzb']; from sqzb.cli import main\n"
    code += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    words = {"COMP_WORDS": "sqzb pretrain phase2", "COMP_CWORD": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words | {"_SQZB_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.split() == ["phase2_512"]
    assert not {"torch", "numpy", "transformers", "datasets"} & set(ended.stderr.split())


def test_a_script_is_shown_and_help_names_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="sqzb").output
    assert "_SQZB_COMPLETE=complete_bash" in shown
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).output
