"""Facts about the machine: each has a consequence where there is one, and nothing secret."""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sqzb import console, doctor
from sqzb.cli.doctor import doctor as command
from sqzb.errors import UserError

ROOT = Path(__file__).parents[1]
TORCH: dict[str, Any] = {
    "version": "2.13.0",
    "cuda": None,
    "threads": 2,
    "instructions": "AVX2",
    "gpus": [],
}
GPU = {"name": "NVIDIA A10", "memory": 24 * 10**9, "capability": "8.6"}
SECRET = "hf_geheim"


class Answer(BaseHTTPRequestHandler):
    """Counts the requests, and answers each with an error, as a Hub without a start page."""

    paths: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.paths.append(self.path)
        self.send_error(503)

    def log_message(self, *values: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Answer.paths = []
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe_torch", lambda: TORCH)
    monkeypatch.setattr(doctor, "_nvidia_smi", list)


def facts() -> dict[str, doctor.Fact]:
    return {fact.name: fact for fact in doctor.examine()}


def test_all_facts_are_printed_and_written(
    tmp_path: Path, hub: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    file = tmp_path / "machine.json"
    command(file)
    shown, written = capsys.readouterr().out, json.loads(file.read_text())
    assert Answer.paths == ["/"]  # one request
    assert f"{hub} answers" in shown
    for name, fact in written.items():
        assert fact.keys() == {"value", "meaning"} and fact["value"]
        assert re.search(rf"^{re.escape(name)}\s", shown, re.M)
    assert SECRET not in shown + file.read_text()
    with pytest.raises(UserError, match="overwrite"):
        command(file)


def test_it_fits_80_columns(
    hub: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", console.PlainConsole(console._Stream("stdout"), width=80))
    doctor.print_facts(doctor.examine())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_hub_is_asked_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    monkeypatch.setattr(doctor, "HUB_SECONDS", 0.05)
    monkeypatch.setattr(Answer, "do_HEAD", lambda self: time.sleep(0.5))
    fact = facts()["Hub"]
    assert "not reachable" in fact.value and "HTTPS_PROXY" in fact.meaning


def test_an_address_without_a_hub_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{SECRET}@127.0.0.1:9")
    fact = facts()["Hub"]
    assert "http://127.0.0.1:9 is not reachable" in fact.value and SECRET not in str(fact)


def test_offline_by_choice_asks_nothing(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in facts()["Hub"].value and not Answer.paths


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
        ("import os; os.abort()", "ended with code -6"),
        ("import sys; sys.exit(0)", "ended with code 0"),
        ("print('[' * 50000)", "cannot"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_told(
    tmp_path: Path, source: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "torch.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fact = next(fact for fact in doctor._torch(doctor.probe_torch()))
    assert fact.value.startswith("cannot be used: ") and told in fact.value
    assert "pip install torch" in fact.meaning


@pytest.mark.parametrize(
    ("torch", "listed", "value", "meaning"),
    [
        (TORCH, [], "none", "on the CPU"),
        (TORCH, [("A10", "580.1")], "A10, driver 580.1", "is built for CPUs"),
        ({**TORCH, "cuda": "13.0"}, [("A10", "1")], "A10, driver 1", "CUDA_VISIBLE_DEVICES"),
        ({"error": "x"}, [("A10", "1")], "A10, driver 1", "torch cannot be used"),
        ({**TORCH, "gpus": [GPU]}, [("A10", "1")], "NVIDIA A10, 24.0 GB", ""),
        ({**TORCH, "gpus": [{**GPU, "capability": "7.5"}]}, [], "NVIDIA A10", "precision=fp32"),
    ],
)
def test_gpus(
    torch: dict[str, Any],
    listed: list[tuple[str, str]],
    value: str,
    meaning: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_nvidia_smi", lambda: listed)
    (fact,) = doctor._gpus(torch)
    assert fact.value.startswith(value) and meaning in fact.meaning
    assert bool(meaning) == bool(fact.meaning)


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in "rensa numpy" else "1.0")
    found = facts()
    assert "numpy missing" in found["Libraries"].value
    assert found["Libraries"].meaning == "Install: numpy."
    assert "dedup (near_duplicates" in found["Missing extras"].value


def test_the_packages_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    assert re.findall(r'^    "([\w-]+)', required, re.M) == list(doctor.LIBRARIES)
    optional = text.partition("[project.optional-dependencies]")[2].partition("\n\n")[0]
    extras = dict(re.findall(r'^(\w+) = \[.*"([\w-]+)[^"]*"\]', optional, re.M))
    del extras["docs"]
    assert extras == {extra: package for extra, (package, _) in doctor.EXTRAS.items()}
