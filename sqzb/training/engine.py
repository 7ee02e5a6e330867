"""One optimizer step, equal to the step of one large batch however it is divided into micro-batches and processes."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed import DistError
from torch.optim import Optimizer

from sqzb.draws import hash64
from sqzb.errors import PeerLost
from sqzb.model.heads import IGNORED
from sqzb.training.cpu import tune_cpu

MicroBatch = Mapping[str, Tensor]

PATIENCE = timedelta(minutes=10)  # for another process, before it counts as lost


class StepResult(dict[str, float]):
    """Figures of a step over the whole global batch: NAME_loss and NAME_accuracy for each tally, and grad_norm."""

    @property
    def loss(self) -> float:
        """What was minimised: the sum of the means."""
        return sum(value for name, value in self.items() if name.endswith("_loss"))

    @property
    def finite(self) -> bool:
        return all(math.isfinite(value) for value in self.values())


def start_accelerator(precision: str = "fp32") -> Accelerator:
    """Join the processes that accelerate or torchrun launched, on the devices that there are. PeerLost when they do not
    all come.

    Where there is no accelerator, accelerate must be told so: it would leave each process on its own.
    """
    tune_cpu()
    try:
        return Accelerator(
            mixed_precision="bf16" if precision == "bf16" else "no",
            cpu=not torch.accelerator.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
    except DistError as error:
        raise PeerLost(
            f"The processes of the run did not find each other within {PATIENCE.seconds} seconds "
            f"({str(error).splitlines()[0]}). Start all of them, with the same address and number of processes."
        ) from error


class Evaluator:
    """A model on whatever devices and processes accelerate finds.

    labels: for each of the model's tallies, the entry of a micro-batch that holds its labels.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, labels: Mapping[str, str]) -> None:
        self.accelerator = accelerator
        self.model = model.to(accelerator.device)
        self._labels = labels

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch]) -> dict[str, float]:
        """NAME_loss and NAME_accuracy over this and every other process's micro-batches, without dropout."""
        self.model.eval()
        sums = self._zeros()
        counts = dict.fromkeys(self._labels, 0.0)
        for batch in micro_batches:
            with self.accelerator.autocast():
                _add(sums, self.model(**self._on_device(batch)).tallies)
            for name, label in self._labels.items():
                counts[name] += self._count([batch], label)
        return self._figures(sums, self.totals(counts))

    def totals(self, values: dict[str, float]) -> dict[str, float]:
        """Each value summed over the processes, which all hold the same names."""
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(values, self.accelerator.reduce(tensor, "sum").tolist(), strict=True))

    def _zeros(self) -> dict[str, Tensor]:
        kinds = ("loss", "accuracy")
        zero = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        return {f"{name}_{kind}": zero.clone() for name in self._labels for kind in kinds}

    def _figures(self, sums: Mapping[str, Tensor], counts: Mapping[str, float]) -> dict[str, float]:
        totals = self.totals({figure: float(value) for figure, value in sums.items()})
        by_figure = {figure: counts[figure.rsplit("_", 1)[0]] for figure in totals}
        return {figure: total / by_figure[figure] for figure, total in totals.items() if by_figure[figure]}

    def _count(self, micro_batches: Sequence[MicroBatch], label: str) -> float:
        return float(sum(int((batch[label] != IGNORED).sum()) for batch in micro_batches))

    def _on_device(self, batch: MicroBatch) -> dict[str, Tensor]:
        device = self.accelerator.device
        if device.type == "cuda":  # which has to be waited for, unless it is copied to from pinned memory
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class Engine(Evaluator):
    """A model with its optimizer, which trains it by whole steps."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        labels: Mapping[str, str],
        clip_norm: float,
        compile: bool,
    ) -> None:
        super().__init__(accelerator, model, labels)
        self._clip_norm = clip_norm
        self.optimizer = optimizer
        prepared = accelerator.prepare_model(self.model)
        self._forward = torch.compile(prepared, dynamic=False) if compile else prepared

    def step(self, micro_batches: Sequence[MicroBatch], lr: float, keys: Sequence[int]) -> StepResult:
        """Train on this process's micro-batches of a step.

        keys: one for each micro-batch; its dropout is drawn from it. The loss is the sum over all micro-batches of
        all processes divided by the counts over all of them, so its gradient is that of the whole batch. A gradient
        that is not finite leaves the weights as they were.
        """
        self.model.train()
        counts = self.totals({name: self._count(micro_batches, label) for name, label in self._labels.items()})
        sums = self._zeros()
        for number, (batch, key) in enumerate(zip(micro_batches, keys, strict=True)):
            torch.manual_seed(key)
            last = number == len(micro_batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self._forward):
                tallies = self._forward(**self._on_device(batch)).tallies
                loss = sum(tally.loss / max(1.0, counts[name]) for name, tally in tallies.items())
                # Data parallelism averages the gradients of the processes, where the sum is due.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            _add(sums, tallies)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        result = StepResult(**self._figures(sums, counts), grad_norm=float(norm))
        if result.finite:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad()
        return result


def _add(sums: dict[str, Tensor], tallies: Mapping[str, Any]) -> None:
    for name, tally in tallies.items():
        sums[f"{name}_loss"] += tally.loss.detach()
        sums[f"{name}_accuracy"] += tally.correct


def dropout_key(seed: int, step: int, micro_batch: int) -> int:
    """What to seed torch with before a micro-batch, numbered over all processes; 63 bits."""
    return int(hash64(seed, step, micro_batch)) >> 1
