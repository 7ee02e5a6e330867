"""Trackers get each point of the log once, over resumes and rollbacks."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.errors import UserError
from sqzb.recipe import FinetuneRecipe, PretrainRecipe
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import METRICS, RunLog
from sqzb.training.trackers import TENSORBOARD, TRACKIO, check_trackers

Point = tuple[str, int, float]


class FakeTrackio:
    """trackio as far as accelerate calls it: runs by name, to which `resume` adds."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Point]] = {}
        self.opened: list[str] = []
        self.finished = 0

    def init(self, project: str, name: str, resume: str) -> Any:
        self.opened.append(resume)
        points = self.runs.setdefault(name, [])
        if resume == "never":
            points = self.runs[name] = []

        def log(values: dict[str, float], step: int) -> None:
            points.extend((key, step, value) for key, value in values.items())

        def finish() -> None:
            self.finished += 1

        return SimpleNamespace(log=log, finish=finish)


@pytest.fixture(scope="module", autouse=True)
def accelerate_knows_the_processes() -> None:
    start_accelerator()


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTrackio]:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    yield fake


def points_of(folder: Path) -> list[Point]:
    """Return the numbers of the log but its times, which differ from run to run."""
    found = []
    for line in map(json.loads, (folder / METRICS).read_text().splitlines()):
        for name, value in line.items():
            if name not in ("step", "time"):
                found.append((name, line["step"], value))
    return found


def write(log: RunLog, steps: range) -> None:
    for step in steps:
        log.log(step, loss=1 / step, grad_norm=None, skipped=True, made_of=[1, 2])
        if step % 3 == 0:
            log.log(step, heldout_mlm_loss=2 / step)


def plain(points: list[Point]) -> list[Point]:
    """Return the points of numbers: the log has lists, nulls and truth values too."""
    return [point for point in points if type(point[2]) is float]


# A run is resumed at a checkpoint that its log has passed, again and again.
RESUMES = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=4)


@given(resumes=RESUMES)
def test_trackio_has_every_point_once(
    tmp_path_factory: pytest.TempPathFactory, resumes: list[tuple[int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fake = FakeTrackio()
        patch.setitem(sys.modules, "trackio", fake)
        folder = tmp_path_factory.mktemp("run")
        reached = 0
        for back, steps in [(0, 5), *resumes]:
            start = max(0, reached - back)
            log = RunLog(folder, True, trackers=[TRACKIO])
            log.forget_after(start)
            reached = max(reached, start + steps)
            write(log, range(start + 1, reached + 1))
            log.close()
        assert sorted(fake.runs[str(folder)]) == sorted(plain(points_of(folder)))
        assert fake.opened == ["never"] + ["allow"] * len(resumes)
        assert fake.finished == len(fake.opened)


def test_tensorboard_has_every_point_once(tmp_path: Path) -> None:
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module).EventAccumulator
    for start, end in ((0, 7), (5, 8), (3, 10)):
        log = RunLog(tmp_path, True, trackers=[TENSORBOARD])
        log.forget_after(start)
        write(log, range(start + 1, end + 1))
        log.close()
    events = accumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    sent = [
        (name, event.step, round(event.value, 6))
        for name in events.Tags()["scalars"]
        for event in events.Scalars(name)
    ]
    due = [(name, step, round(value, 6)) for name, step, value in plain(points_of(tmp_path))]
    assert len(sent) == 13 and sorted(sent) == sorted(due)


def test_another_models_figures_and_rolled_back_ones_are_left_to_the_log(
    tmp_path: Path, trackio: FakeTrackio
) -> None:
    log = RunLog(tmp_path, True, trackers=[TRACKIO])
    log.forget_after(0)
    log.log(1, loss=1.0)
    log.log(1, rolled_back_from=2, loss=9.0)
    log.log(1, of_step=1, validation_score=0.5)
    assert trackio.runs[str(tmp_path)] == [("loss", 1, 1.0)]


def test_a_process_that_does_not_write_has_no_trackers(
    tmp_path: Path, trackio: FakeTrackio
) -> None:
    log = RunLog(tmp_path, False, trackers=[TRACKIO])
    log.forget_after(0)
    log.log(1, loss=1.0)
    log.close()
    assert not trackio.runs


def test_a_tracker_that_fails_ends_no_run(
    tmp_path: Path, trackio: FakeTrackio, capsys: pytest.CaptureFixture[str]
) -> None:
    trackio.init = lambda **options: SimpleNamespace()  # type: ignore[method-assign]
    log = RunLog(tmp_path, True, trackers=[TRACKIO])
    log.forget_after(0)
    write(log, range(1, 4))
    log.close()
    assert len(points_of(tmp_path)) == 3 * 4 + 1
    assert capsys.readouterr().err.count("The tracker trackio has failed") == 1


def test_a_missing_package_names_its_extra() -> None:
    check_trackers([])
    with pytest.raises(UserError, match=r"pip install 'sqzb\[no_such_tracker\]'"):
        check_trackers(["no_such_tracker"])


def test_trackers_are_off_by_default_and_may_change() -> None:
    for kind in (PretrainRecipe, FinetuneRecipe):
        assert kind().trackers == () and "trackers" in kind.may_change
