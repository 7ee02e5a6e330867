"""CUDA graphs: one launch a micro-batch and one an update, so a GPU waits less for Python."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from sqzb.training.processes import warn

Inputs = Mapping[str, Tensor]
Signature = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]

# The part of the device's memory that a run without graphs may take, because graphs take as much
# again.
ROOM = 0.45


def choose_graphs(asked: bool | str, accelerator: Accelerator, measured: bool) -> bool:
    """Return whether a run computes by CUDA graphs.

    asked: the recipe's true, false or "auto". With "auto" graphs are used in a run of the kind that
    was measured to be faster with them, in one process on an NVIDIA GPU.
    measured: whether this run is of that kind.

    A run that asks for graphs and cannot have them continues without, with a warning that gives the
    reason.
    """
    on_nvidia = accelerator.device.type == "cuda" and torch.version.hip is None
    possible = on_nvidia and accelerator.num_processes == 1
    if asked == "auto":
        return measured and possible
    if asked and not possible:
        reason = f"CUDA graphs need an NVIDIA GPU, and this is {accelerator.device}"
        warn(
            accelerator,
            "graphs: off: "
            f"{reason if not on_nvidia else 'CUDA graphs need a run of a single process'}.",
        )
    return bool(asked) and possible


class Graphs:
    """Runs `compute` on micro-batches: each shape from its second time on as a CUDA graph.

    compute: reads its inputs and tensors that keep their address, writes into such tensors, and
    returns nothing.

    The first micro-batch of a shape runs without a graph, so that torch.compile compiles before the
    recording. torch gives a graph the seed of torch.manual_seed at each replay, so dropout is that
    of a run without graphs. All graphs share one memory pool, because no replay reads what another
    has left there.
    """

    def __init__(self, compute: Callable[[Inputs], None], accelerator: Accelerator) -> None:
        self._compute, self._accelerator, self._device = compute, accelerator, accelerator.device
        self._seen: set[Signature] = set()
        self._graphs: dict[Signature, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self._pool: Any = None
        self._is_off = False

    def __call__(self, batch: Inputs, may_record: bool) -> None:
        """Compute a micro-batch that is on the device, or in pinned memory of the host.

        may_record: whether the tensors that `compute` writes into already have their final address.
        """
        signature = tuple(
            (name, tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()
        )
        is_new = signature not in self._graphs
        if is_new and may_record and signature in self._seen and not self._is_off:
            self._record(signature, batch)

        if signature not in self._graphs:
            self._seen.add(signature)
            on_device = {name: t.to(self._device, non_blocking=True) for name, t in batch.items()}
            self._compute(on_device)
            return

        graph, inputs = self._graphs[signature]
        for name, tensor in batch.items():
            inputs[name].copy_(tensor, non_blocking=True)
        graph.replay()

    def _record(self, signature: Signature, batch: Inputs) -> None:
        """Record the graph of a shape, without computing; if that fails, use no more graphs."""
        if self._pool is None:
            taken = torch.cuda.max_memory_allocated(self._device)
            memory = torch.cuda.get_device_properties(self._device).total_memory
            if taken > ROOM * memory:
                share = f"{taken / memory:.0%} of the memory"
                self._give_up(
                    f"a micro-batch takes {share}, and graphs as much again. Lower micro_batch"
                )
                return
            self._pool = torch.cuda.graph_pool_handle()

        inputs = {
            name: torch.empty_like(tensor, device=self._device) for name, tensor in batch.items()
        }
        try:
            graph = _recorded(lambda: self._compute(inputs), self._pool, self._device)
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[0])
            return
        self._graphs[signature] = graph, inputs

    def _give_up(self, reason: str) -> None:
        self._is_off = True
        warn(self._accelerator, f"graphs: off: {reason}.")


class UpdateGraph:
    """Runs an optimizer's update: from its second time on as a CUDA graph.

    update: clips, steps and returns figures, without reading a number from the device. The first
    update runs without a graph, and makes the tensors that the graph changes in place.
    """

    def __init__(
        self, update: Callable[[], Tensor], optimizer: Optimizer, accelerator: Accelerator
    ) -> None:
        self._update, self._optimizer, self._accelerator = update, optimizer, accelerator
        self._ran, self._is_off = False, False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._figures = torch.empty(0)
        self._rates: list[Tensor] = []
        # A run that is rolled back gets new moments, of which the graph knows nothing.
        optimizer.register_load_state_dict_post_hook(lambda _: self._forget())

    def __call__(self) -> Tensor:
        """Update, at the rates of the optimizer's groups, and return the figures."""
        if self._graph is None and self._ran and not self._is_off:
            self._record()
        if self._graph is None:
            self._ran = True
            return self._update()

        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._graph.replay()
        return self._figures

    def _forget(self) -> None:
        self._graph, self._ran = None, False

    def _record(self) -> None:
        """Record the graph, without updating; if that fails, use none."""
        device, groups = self._accelerator.device, self._optimizer.param_groups
        self._rates = [torch.zeros((), device=device) for _ in groups]
        given = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            # In the graph, the rate is read from the device. torch's optimizers want to be told.
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True

        def update() -> None:
            self._figures = self._update()

        try:
            self._graph = _recorded(update, torch.cuda.graph_pool_handle(), device)
        except RuntimeError as error:
            self._is_off = True
            reason = str(error).splitlines()[0]
            warn(self._accelerator, f"graphs: off for the optimizer: {reason}.")
        finally:
            for group, values in zip(groups, given, strict=True):
                group.update(values)


def _recorded(compute: Callable[[], None], pool: Any, device: torch.device) -> torch.cuda.CUDAGraph:
    """Return a graph of what `compute` does, without doing it.

    Raises:
        RuntimeError: the computation cannot be recorded.
    """
    before = torch.cuda.current_stream(device)
    graph = torch.cuda.CUDAGraph()
    try:
        # The thread that makes micro-batches allocates pinned memory at the same time, which would
        # end a recording in the default mode.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            compute()
    except RuntimeError:
        # The recording may have failed before it restored the stream.
        torch.cuda.set_stream(before)
        raise
    return graph
