"""When a shape is recorded and when it is replayed, on a made-up GPU; and which runs have
graphs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sqzb.training.graphs import Graphs, choose_graphs

CPU = torch.device("cpu")


class Gpu:
    """Records what is computed: "run" at once, "record" without numbers, "replay" of a recorded
    graph.
    """

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.log = fails, []  # type: ignore[var-annotated]
        self.recording: Any = None

    def compute(self, inputs: dict[str, Tensor]) -> None:
        if self.recording is None:
            self.log.append(("run", int(inputs["x"].sum())))
        elif self.fails:
            raise RuntimeError("operation not permitted\nand more")
        else:
            self.recording.inputs = inputs
            self.log.append(("record", tuple(inputs["x"].shape)))

    def make_graph(self) -> Any:
        graph = SimpleNamespace()
        graph.replay = lambda: self.log.append(("replay", int(graph.inputs["x"].sum())))
        return graph

    @contextmanager
    def graph(self, graph: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert pool == "pool" and capture_error_mode == "thread_local"
        self.recording = graph
        try:
            yield
        finally:
            self.recording = None


def graphs_on(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, taken: int = 10) -> Graphs:
    names = {
        "CUDAGraph": gpu.make_graph,
        "graph": gpu.graph,
        "graph_pool_handle": lambda: "pool",
        "max_memory_allocated": lambda _: taken,
        "get_device_properties": lambda _: SimpleNamespace(total_memory=100),
        "current_stream": lambda _: "stream",
        "set_stream": lambda stream: gpu.log.append(("stream", stream)),
    }
    for name, function in names.items():
        monkeypatch.setattr(torch.cuda, name, function)
    accelerator: Any = SimpleNamespace(device=CPU, is_main_process=True)
    return Graphs(gpu.compute, accelerator)  # type: ignore[arg-type]


def x(length: int, value: int) -> dict[str, Tensor]:
    return {"x": torch.full((1, length), value)}


def test_a_shape_is_run_then_recorded_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    graphs = graphs_on(gpu, monkeypatch)
    for batch in (x(2, 1), x(3, 1), x(2, 5), x(2, 6), x(3, 7)):
        graphs(batch, may_record=True)
    assert gpu.log == [
        ("run", 2), ("run", 3), ("record", (1, 2)), ("replay", 10), ("replay", 12),
        ("record", (1, 3)), ("replay", 21),
    ]  # fmt: skip


def test_nothing_is_recorded_while_gradients_may_move(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    graphs = graphs_on(gpu, monkeypatch)
    for may_record in (False, False, True):
        graphs(x(2, 1), may_record=may_record)
    assert gpu.log == [("run", 2), ("run", 2), ("record", (1, 2)), ("replay", 2)]


@pytest.mark.parametrize(
    ("fails", "taken", "reason"),
    [(True, 10, "operation not permitted."), (False, 60, "a micro-batch takes 60% of the memory")],
)
def test_without_graphs_a_run_continues_and_says_why_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: bool,
    taken: int,
    reason: str,
) -> None:
    gpu = Gpu(fails)
    graphs = graphs_on(gpu, monkeypatch, taken)
    for value in (1, 2, 3):
        graphs(x(2, value), may_record=True)
    assert [entry for entry in gpu.log if entry[0] != "stream"] == [
        ("run", 2),
        ("run", 4),
        ("run", 6),
    ]
    said = " ".join(capsys.readouterr().err.split())
    assert f"graphs: off: {reason}" in said and said.count("graphs:") == 1


@pytest.mark.skipif(
    torch.version.hip is not None, reason="the device of that name is no NVIDIA GPU"
)
def test_which_runs_have_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    def chosen(
        asked: bool | str, device: str = "cuda", processes: int = 1, measured: bool = True
    ) -> bool:
        accelerator: Any = SimpleNamespace(
            device=torch.device(device), num_processes=processes, is_main_process=True
        )
        return choose_graphs(asked, accelerator, measured)

    assert chosen("auto") and chosen(True, measured=False)
    assert (
        not chosen("auto", measured=False)
        and not chosen("auto", processes=2)
        and not chosen("auto", "cpu")
    )
    assert not chosen(False) and capsys.readouterr().err == ""
    assert (
        not chosen(True, "cpu") and "need an NVIDIA GPU, and this is cpu" in capsys.readouterr().err
    )
    assert (
        not chosen(True, processes=2)
        and "need a run of a single process" in capsys.readouterr().err
    )
