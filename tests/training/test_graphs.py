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

from sqzb.training.graphs import Graphs, UpdateGraph, choose_graphs
from sqzb.training.lamb import Lamb

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


class Replaying:
    """A graph on a CPU: what is recorded is not computed, and a replay computes it."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.log = fails, []  # type: ignore[var-annotated]
        self.is_recording = False

    def patch(self, monkeypatch: pytest.MonkeyPatch, compute: Any) -> None:
        @contextmanager
        def graph(graph: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
            self.is_recording = True
            try:
                yield
            finally:
                self.is_recording = False

        names = {
            "CUDAGraph": lambda: SimpleNamespace(replay=compute),
            "graph": graph,
            "graph_pool_handle": lambda: "pool",
            "current_stream": lambda _: "stream",
            "set_stream": lambda stream: None,
        }
        for name, function in names.items():
            monkeypatch.setattr(torch.cuda, name, function)


def updates(
    monkeypatch: pytest.MonkeyPatch, optimizer: torch.optim.Optimizer, gpu: Replaying
) -> UpdateGraph:
    """The optimizer's update on a made-up GPU; the log has each update and the rates it was given.

    A rate that the graph reads from the device is recorded as "device".
    """

    def rates() -> list[Any]:
        given = [group["lr"] for group in optimizer.param_groups]
        return ["device" if isinstance(rate, Tensor) else rate for rate in given]

    def update() -> Tensor:
        gpu.log.append(("record" if gpu.is_recording else "run", *rates()))
        if gpu.is_recording and gpu.fails:
            raise RuntimeError("operation not permitted\nand more")
        if not gpu.is_recording:
            optimizer.step()
        return torch.tensor([float(len(gpu.log))])

    def replay() -> None:
        gpu.log.append(("replay", *(float(rate) for rate in graph._rates)))
        groups = optimizer.param_groups
        own = [group["lr"] for group in groups]
        for group, rate in zip(groups, graph._rates, strict=True):
            group["lr"] = rate
        optimizer.step()
        for group, rate in zip(groups, own, strict=True):
            group["lr"] = rate

    gpu.patch(monkeypatch, replay)
    accelerator: Any = SimpleNamespace(device=CPU, is_main_process=True)
    graph = UpdateGraph(update, optimizer, accelerator)
    return graph


def lamb() -> Lamb:
    torch.manual_seed(0)
    groups = []
    for adapt, shape in ((True, (4, 3)), (False, (3,))):
        parameter = torch.nn.Parameter(torch.randn(shape))
        parameter.grad = torch.randn(shape)
        groups.append({"params": [parameter], "weight_decay": 0.1, "adapt": adapt})
    return Lamb(groups, 0.5, (0.9, 0.999), 1e-6, together=True)


def test_an_update_is_run_then_recorded_then_replayed_at_the_rates_of_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    optimizer, plain = lamb(), lamb()
    gpu = Replaying()
    graph = updates(monkeypatch, optimizer, gpu)
    for rate in (0.5, 0.25, 0.125):
        for each in (optimizer, plain):
            for group in each.param_groups:
                group["lr"] = rate
        graph()
        plain.step()
        # A checkpoint that is written now has the rate as a number.
        assert [group["lr"] for group in optimizer.param_groups] == [rate, rate]
    assert gpu.log == [
        ("run", 0.5, 0.5), ("record", "device", "device"), ("replay", 0.25, 0.25),
        ("replay", 0.125, 0.125),
    ]  # fmt: skip
    for one, other in zip(optimizer.param_groups, plain.param_groups, strict=True):
        torch.testing.assert_close(one["params"], other["params"], rtol=0, atol=0)


def test_after_a_rollback_the_update_is_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading replaces the moments, and a graph would still change the old ones."""
    optimizer, gpu = lamb(), Replaying()
    graph = updates(monkeypatch, optimizer, gpu)
    graph(), graph()
    optimizer.load_state_dict(optimizer.state_dict())
    graph(), graph()
    assert [entry[0] for entry in gpu.log] == ["run", "record", "replay"] * 2


def test_an_update_that_cannot_be_recorded_runs_without_a_graph_and_says_why_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer, gpu = lamb(), Replaying(fails=True)
    graph = updates(monkeypatch, optimizer, gpu)
    for _ in range(3):
        graph()
    assert [entry[0] for entry in gpu.log] == ["run", "record", "run", "run"]
    assert gpu.log[-1] == ("run", 0.5, 0.5)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("graphs:") == 1
    assert "graphs: off for the optimizer: operation not permitted." in said


def test_torchs_own_optimizers_hear_of_a_recording_and_forget_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    seen: list[bool] = []

    def update() -> Tensor:
        seen.append(optimizer.param_groups[0]["capturable"])
        return torch.zeros(1)

    Replaying().patch(monkeypatch, lambda: None)
    accelerator: Any = SimpleNamespace(device=CPU, is_main_process=True)
    graph = UpdateGraph(update, optimizer, accelerator)
    graph(), graph()
    assert seen == [False, True] and optimizer.param_groups[0]["capturable"] is False


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
