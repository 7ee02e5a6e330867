"""Copies between host and device: their types, and the order of their streams on a made-up GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from sqzb.training.transfers import CopiesAhead, pinned


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(stream, action) on a GPU that is the CPU, and pins no memory."""
    actions: list[tuple[str, str]] = []
    current = ["main"]

    class Stream:
        def __init__(self, device: torch.device | None = None, name: str = "side") -> None:
            self.device, self.name = torch.device("cpu"), name

        def wait_event(self, event: Any) -> None:
            actions.append((self.name, f"wait for {event.of}"))

    class Event:
        of = ""

        def record(self) -> None:
            self.of = current[0]
            actions.append((current[0], "record"))

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        current[0] = stream.name
        yield
        current[0] = "main"

    own_to, own_empty = Tensor.to, torch.empty

    def to(tensor: Tensor, *args: Any, **how: Any) -> Tensor:
        if how.get("non_blocking"):
            actions.append((current[0], "copy"))
        return own_to(tensor, *args, **how)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(name=current[0]))
    monkeypatch.setattr(
        torch, "empty", lambda *args, pin_memory=False, **how: own_empty(*args, **how)
    )
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(
        Tensor,
        "record_stream",
        lambda tensor, stream: actions.append((stream.name, "used")),
    )
    return actions


@pytest.mark.usefixtures("log")
def test_whole_numbers_get_as_many_bytes_as_they_need() -> None:
    batch = {
        "input_ids": torch.tensor([[40_000, 1]]),
        "attention_mask": torch.tensor([[1, 0]]),
        "token_type_ids": torch.tensor([[0, 1]]),
        "teacher_logits": torch.tensor([[0.5]]),
    }
    for as_bytes, flag in ((False, torch.int32), (True, torch.int8)):
        copies = pinned(batch, as_bytes)
        assert [copy.dtype for copy in copies.values()] == [torch.int32, flag, flag, torch.float32]
        for name, tensor in batch.items():
            assert copies[name].tolist() == tensor.tolist()


def test_copies_are_made_aside_and_waited_for_before_their_use(
    log: list[tuple[str, str]],
) -> None:
    batches = [{"x": torch.ones(2)}, {"x": torch.zeros(2)}]
    copies = CopiesAhead(batches, torch.cuda.Stream())
    assert log == [("side", "copy"), ("side", "copy"), ("side", "record")]
    taken = copies.taken()
    assert log[3:] == [("main", "wait for side"), ("main", "used"), ("main", "used")]
    assert [batch["x"].tolist() for batch in taken] == [[1, 1], [0, 0]]
