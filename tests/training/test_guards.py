"""Guards: a second signal ends at once, and what must not count does not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.errors import UserError
from sqzb.training.guards import AGAIN, RECENT, RECENT_LEAST, LossMonitor, check_space

PROGRAM = """
import time
from sqzb.training.guards import Signals
signals = Signals()
with signals.caught():
    print("ready", flush=True)
    while not signals.received:
        time.sleep(0.05)
    print(signals.received, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_is_noted_and_a_second_ends_at_once(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"{int(number)}\n"
    process.send_signal(number)  # as a launcher passes on what the terminal has sent to all
    time.sleep(AGAIN + 0.1)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == 128 + number  # it would sleep for 60 seconds
    assert f"{number.name}: the run ends after this step" in process.stderr.read()


def test_a_signal_is_received_though_nobody_reads_the_note() -> None:
    """Ctrl-C in `sqzb pretrain ... 2>&1 | tee log` ends tee first."""
    script = (
        "import os, signal; from sqzb.training.guards import Signals\n"
        "signals = Signals()\n"
        "with signals.caught():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(signals.received)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (ended.returncode, ended.stdout) == (0, b"2\n")


def test_handlers_are_put_back() -> None:
    from sqzb.training.guards import Signals

    before = signal.getsignal(signal.SIGTERM)
    with Signals().caught():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@given(st.lists(st.booleans(), max_size=30))
def test_only_steps_in_a_row_are_counted(finite: list[bool]) -> None:
    monitor = LossMonitor(None)
    for one in finite:
        assert not monitor.note(1.0, one)
    run = 0
    for one in finite:
        run = 0 if one else run + 1
    assert monitor.skipped_in_a_row == run


def test_a_spike_is_over_the_running_median() -> None:
    monitor = LossMonitor(1.5)
    assert not any(monitor.note(100.0, True) for _ in range(RECENT_LEAST - 1))  # too few to know
    assert not any(monitor.note(2.0, True) for _ in range(RECENT))
    assert not monitor.note(2.9, True) and not monitor.note(float("nan"), False)
    assert monitor.note(3.1, True) and monitor.note(3.1, True)  # a spike does not move the median


def test_without_a_factor_nothing_is_a_spike() -> None:
    monitor = LossMonitor(None)
    assert not any(monitor.note(loss, True) for loss in [1.0] * 50 + [1e9])


@given(st.lists(st.tuples(st.floats(0.1, 9), st.booleans()), max_size=150), st.integers(0, 150))
def test_a_restored_monitor_goes_on_as_the_first(seen: list[tuple[float, bool]], at: int) -> None:
    one, other = LossMonitor(1.3), LossMonitor(1.3)
    before, after = seen[:at], seen[at:]
    for loss, finite in before:
        one.note(loss, finite)
    other.restore(one.state())
    assert [one.note(*step) for step in after] == [other.note(*step) for step in after]
    assert one.state() == other.state()


def test_space_is_checked_where_the_folder_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_space(tmp_path / "not" / "yet", 1000, "it")
    with pytest.raises(UserError, match=r"1\.0 kB free, and it will take 1\.0 kB"):
        check_space(tmp_path / "not" / "yet", 1001, "it")
    assert asked == [tmp_path, tmp_path]
