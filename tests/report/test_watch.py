"""Runs that are followed while they go on."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from examples import scaled
from report_runs import finetuned, pretrained
from sqzb import console
from sqzb.errors import UserError
from sqzb.report.runs import read_runs
from sqzb.report.watch import Followed, FollowedRun, sparkline, watch
from sqzb.training.run_folder import METRICS, RUN


def texts(followed: Followed, width: int = 80, height: int = 50) -> list[str]:
    return ["".join(text for text, _ in line) for line in followed.draw(width, height)]


@settings(max_examples=scaled(12), deadline=None)
@given(st.lists(st.integers(1, 400), max_size=30))
def test_a_growing_log_is_read_as_the_whole_log_is(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    """A look may come at any byte of a line."""
    folder = pretrained(tmp_path_factory.mktemp("runs") / "one")
    content, run = (folder / METRICS).read_bytes(), FollowedRun(folder)
    end = 0
    for cut in [*cuts, len(content)]:
        end = min(len(content), end + cut)
        (folder / METRICS).unlink() if cut == 1 else None  # a resumed run has a new file
        (folder / METRICS).write_bytes(content[:end])
        run.look()
        (whole,) = read_runs([str(folder)])
        assert run.record.last_step == whole.last_step
        assert run.record.evaluations == whole.evaluations[-1:]
        assert run.record.finished == whole.finished and run.record.steps == whole.steps


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one", reached=20)
    run = FollowedRun(folder)
    run.look()
    old = (folder / METRICS).read_bytes()
    with (folder / METRICS).open("r+b") as log:
        log.write(b"x" * len(old))  # would be unreadable
        log.write(b'{"step": 21, "loss": 1.25}\n{"step": 22, "lo')
    run.look()
    assert run.record.last_step == 21 and "loss 1.250" in run.card(40, time.time())[2][0]


@settings(max_examples=scaled(20), deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300), max_size=300),
    st.integers(1, 100),
)
def test_a_sparkline_fits_and_goes_from_lowest_to_highest(losses: list[float], width: int) -> None:
    line = sparkline(range(len(losses)), losses, width)
    assert len(line) == min(width, len(losses))
    if losses and len(losses) <= width:
        assert line[losses.index(min(losses))] == min(line)
        if len(line) > 1 and max(losses) > min(losses):
            assert line[losses.index(max(losses))] == max(line)


@pytest.mark.parametrize("width", [20, 80, 120])
@pytest.mark.parametrize("height", [5, 24, 100])
def test_a_picture_fits_its_terminal(tmp_path: Path, width: int, height: int) -> None:
    for number in range(7):
        pretrained(tmp_path / f"a_long_name_\u4e2d\u6587_{number}", reached=30)
    finetuned(tmp_path / "last")
    followed = Followed([str(tmp_path)])
    followed.look()
    lines = texts(followed, width, height)
    assert len(lines) <= height and max(map(cell_len, lines)) <= width
    if height == 5:
        assert lines[-1].startswith("and 4 more") and not any("last" in line for line in lines)


def test_runs_are_side_by_side(tmp_path: Path) -> None:
    pretrained(tmp_path / "one", steps=4_000, reached=20)
    pretrained(tmp_path / "two", steps=10)
    with (tmp_path / "one" / METRICS).open("a") as log:
        for step in (21, 22):
            log.write(json.dumps({"step": step, "time": step * 10.0, "loss": 2.0}) + "\n")
    followed = Followed([str(tmp_path / "one"), str(tmp_path / "two")])
    followed.look()
    picture = texts(followed)
    assert [line.rstrip() for line in picture if "  loss" in line] == [
        "1%  step 22/4,000  loss 2.000            100%  step 10/10  loss 1.900"
    ]
    assert any("11 h 03 min left" in line for line in picture)
    assert any("mlm_accuracy 20.0%" in line for line in picture)
    assert not followed.finished


def test_a_run_that_stands_still_is_told(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one", reached=20)
    run = FollowedRun(folder)
    run.look()
    changed = (folder / METRICS).stat().st_mtime
    assert run.card(38, changed + 100)[-1][0] == ""
    assert run.card(38, changed + 720)[-1][0] == "no new step for 12 min 00 s"
    for step in (21, 22):  # with 10 minutes between two lines, 12 are nothing
        with (folder / METRICS).open("a") as log:
            log.write(json.dumps({"step": step, "time": step * 600.0}) + "\n")
    os.utime(folder / METRICS, (changed, changed))
    run.look()
    assert run.card(38, changed + 720)[-1][0] == ""


def test_it_waits_for_a_folder_and_ends_with_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "later"
    happenings: list[Any] = [
        lambda: pretrained(folder, steps=20, reached=20),
        lambda: None,
        (folder / "final").mkdir,
    ]
    monkeypatch.setattr(time, "sleep", lambda seconds: happenings.pop(0)())
    watch([str(folder)])
    shown = capsys.readouterr().out
    assert not happenings and "no run yet" in shown and "finished" in shown


def test_ctrl_c_ends_it_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    watch([str(tmp_path / "none")])


def test_once_is_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch([str(finetuned(tmp_path / "one")), str(tmp_path / "none")], once=True)
    shown = capsys.readouterr().out
    assert shown.count("finished") == 1 and shown.count("no run yet") == 1
    with pytest.raises(UserError, match="is a file"):
        watch([str(tmp_path / "one" / RUN)])


def test_a_sweep_is_finished_with_its_results(tmp_path: Path) -> None:
    finetuned(tmp_path / "rte" / "seed-1")
    followed = Followed([str(tmp_path)])
    followed.look()
    assert not followed.finished  # the next run has no folder yet
    (tmp_path / "results.json").write_text("{}")
    followed.look()
    assert followed.finished


def test_an_extended_finetuning_is_not_finished_by_its_old_model(tmp_path: Path) -> None:
    folder = finetuned(tmp_path / "one")
    about = json.loads((folder / RUN).read_text())
    for steps, finished in ((20, False), (10, True)):
        (folder / RUN).write_text(json.dumps(about | {"steps": steps}))
        run = FollowedRun(folder)
        run.look()
        assert run.record.finished == finished == read_runs([str(folder)])[0].finished


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(2, 30))
def test_padded_text_is_as_wide_as_asked(text: str, width: int) -> None:
    assert cell_len(console.padded(text, width)) == width


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1)),
    st.integers(1, 60),
)
def test_items_are_whole_or_absent(items: list[str], width: int) -> None:
    line = console.fitting(items, width)
    n = len(line.split("  ")) if line else 0
    assert len(line) <= width and line == "  ".join(items[:n])
    assert n == len(items) or len("  ".join(items[: n + 1])) > width


def test_a_finished_run_tells_how_long_it_took(tmp_path: Path) -> None:
    run = pretrained(tmp_path / "one", steps=10)
    with (run / METRICS).open("a") as log:
        log.write(json.dumps({"step": 10, "time": 75.0, "loss": 2.0}) + "\n")
    followed = Followed([str(run)])
    followed.look()
    assert any(line.startswith("took 1 min 15 s") for line in texts(followed))
