"""The time of training by a run's log, and a run that is stopped after some of it."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.bench import slices
from sqzb.bench.slices import is_finished, run_slice, training_seconds


def write_log(run: Path, lines: list[dict[str, Any]], resumes: tuple[int, ...] = ()) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    marks = [{"step": step, "started": "2026-01-01T00:00:00+00:00"} for step in resumes]
    (run / "run.json").write_text(json.dumps({"resumes": marks, "steps": 40}))


def trained(step: int, speed: float) -> dict[str, Any]:
    return {"step": step, "tokens": 100 * step, "loss": 6.0, "tokens_per_second": speed}


def test_an_interval_with_a_start_has_the_speed_of_the_next(tmp_path: Path) -> None:
    """Compilation makes the steps 1 to 10 and 21 to 30 slow; the second start is at step 23."""
    speeds = {10: 1, 20: 100, 30: 2, 40: 50}
    lines = [trained(step, speed) for step, speed in speeds.items()]
    lines.insert(2, {"step": 20, "heldout_mlm_loss_15": 6.0})
    write_log(tmp_path / "run", lines, (23,))
    steps, seconds = training_seconds(tmp_path / "run")
    assert steps.tolist() == [0, 10, 20, 30, 40]
    assert np.diff(seconds).tolist() == [10, 10, 20, 20]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.sets(st.integers(1, 20)))
def test_at_a_constant_speed_the_time_is_that_of_the_tokens(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int], resumes: set[int]
) -> None:
    run = tmp_path_factory.mktemp("log")
    write_log(run, [trained(int(step), 50) for step in np.cumsum(gaps)], tuple(sorted(resumes)))
    steps, seconds = training_seconds(run)
    np.testing.assert_allclose(seconds, 2 * steps)


def test_a_run_without_a_log_has_not_trained(tmp_path: Path) -> None:
    assert [part.tolist() for part in training_seconds(tmp_path)] == [[0], [0]]
    assert not is_finished(tmp_path)


def test_a_run_is_finished_with_its_last_evaluation(tmp_path: Path) -> None:
    last = {"step": 40, "heldout_mlm_loss": 6.0}
    write_log(tmp_path, [trained(40, 50), last])
    assert not is_finished(tmp_path)
    (tmp_path / "final").mkdir()
    assert is_finished(tmp_path)
    write_log(tmp_path, [trained(40, 50)])
    assert not is_finished(tmp_path)


class FakeProcess:
    """A command that trains 10 steps at each look at it, and ends with `code`, or at a signal."""

    code: int | None = None

    def __init__(self, command: list[str], **_: Any) -> None:
        self.run = Path(command[command.index("--output") + 1])
        self.returncode: int | None = None
        self.signals: list[int] = []
        running.append(self)

    def poll(self) -> int | None:
        lines = slices.log_lines(self.run)
        write_log(self.run, [*lines, trained(10 * (len(lines) + 1), 50)])
        self.returncode = self.code
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.returncode = 128 + number

    def wait(self) -> int:
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


running: list[FakeProcess] = []


@pytest.fixture(autouse=True)
def _fake_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    running.clear()
    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    monkeypatch.setattr(slices, "POLL", 0)


def test_a_slice_ends_after_its_seconds_of_training(tmp_path: Path) -> None:
    for n in (1, 2):
        run_slice(tmp_path / "run", ["recipe.yaml"], 90, None)
        assert running[-1].signals == [signal.SIGTERM]
        # 10 steps take 20 seconds, and every slice looks at the log after each 10 steps.
        assert training_seconds(tmp_path / "run")[1][-1] == n * 100


def test_a_run_ends_with_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        run_slice(tmp_path / "run", ["recipe.yaml"], 90, None)
    assert running[-1].signals == [signal.SIGKILL]


def test_a_run_that_ends_by_itself_gets_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "code", 0)
    run_slice(tmp_path / "run", ["recipe.yaml"], 1e9, 1)
    assert running[-1].signals == []


def test_a_run_that_fails_ends_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeProcess, "code", 2)
    with pytest.raises(SystemExit) as caught:
        run_slice(tmp_path / "run", ["recipe.yaml"], 1e9, 1)
    assert caught.value.code == 2 and "exit code 2" in capsys.readouterr().out
