"""What happens around the preparation of a run. What a step is, the trainers' tests and those of
reliability hold.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator
from torch import nn

from sqzb.errors import Stopped, UserError
from sqzb.files import locked
from sqzb.recipe import FinetuneRecipe
from sqzb.training import checkpoints, loop


class Prepared(Exception):
    """The preparation is through."""


class Preparing:
    """A job that does nothing but prepare."""

    steps = 1
    needs_older_checkpoints = False

    def __init__(self, folder: Path, work: Callable[[], None]) -> None:
        self.folder, self._work = folder, work
        self.recipe, self.accelerator, self.model = (
            FinetuneRecipe(),
            Accelerator(cpu=True),
            nn.Linear(2, 2),
        )
        self.checkpoint_bytes = checkpoints.size(self.model)

    def print_plan(self) -> None:
        pass

    def prepare(self) -> None:
        self._work()
        raise Prepared


def run(folder: Path, work: Callable[[], None]) -> None:
    job: Any = Preparing(folder, work)
    loop.run(job)


def test_the_folder_is_claimed_when_the_job_prepares(tmp_path: Path) -> None:
    held = []

    def work() -> None:
        with locked(tmp_path / "run") as ours:
            held.append(not ours)

    with pytest.raises(Prepared):
        run(tmp_path / "run", work)
    assert held == [True]


def test_too_small_a_disk_is_refused_before_the_job_prepares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="checkpoints and the model will take"):
        run(tmp_path / "run", lambda: pytest.fail("it was prepared"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_preparation_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever is caught on the way, and with nothing left behind."""
    before = signal.getsignal(number)

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass
        except Exception:
            pytest.fail("the signal was taken for an error")

    with pytest.raises(Stopped, match=f"{number.name}: stopped during preparation") as caught:
        run(tmp_path / "run", work)
    assert caught.value.exit_code == 128 + number
    assert not (tmp_path / "run").exists() and signal.getsignal(number) == before


def test_a_signal_before_the_preparation_keeps_it_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "check_disk", lambda job: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="SIGTERM: stopped during preparation"):
        run(tmp_path / "run", lambda: pytest.fail("it was prepared"))


def test_an_empty_folder_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(Prepared):
        run(tmp_path / "run", lambda: None)
    assert (tmp_path / "run").is_dir()
    with pytest.raises(Prepared):
        run(tmp_path / "other", lambda: None)
    assert not (tmp_path / "other").exists()
