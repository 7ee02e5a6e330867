"""A command of a script is shown, runs as a user would run it, and ends the script when it
fails.
"""

import subprocess
import sys

import pytest

from sqzb.bench.commands import run_sqzb


def test_a_command_is_shown_and_timed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_sqzb("--version") > 0
    shown = capfd.readouterr().out.split("\n")
    assert shown[1] == "$ sqzb --version" and shown[2].startswith("sqzb ")


def test_a_command_that_fails_ends_the_script(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_sqzb("nonsense")
    assert caught.value.code == 2 and "nonsense" in capfd.readouterr().err


@pytest.mark.parametrize(("threads", "due"), [(None, "7"), (1, "1")])
def test_threads_are_those_that_are_given_or_the_environments(
    threads: int | None, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        commands.append([*command, env["OMP_NUM_THREADS"]])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(subprocess, "run", run)
    run_sqzb("eval", "x", threads=threads)
    assert commands == [[sys.executable, "-m", "sqzb", "eval", "x", due]]
