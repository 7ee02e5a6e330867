"""One optimizer step, equal to the step of one large batch however it is divided into micro-batches and processes."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed import DistError
from torch.optim import Optimizer

from sqzb.draws import hash64
from sqzb.errors import PeerLost
from sqzb.model.heads import IGNORED, Tally
from sqzb.training.cpu import tune_cpu
from sqzb.training.gradients import FlatGradients
from sqzb.training.graphs import Graphs

MicroBatch = Mapping[str, Tensor]

PATIENCE = timedelta(minutes=10)  # for another process, before it counts as lost


class StepResult(Mapping[str, float]):
    """Figures of a step over the whole global batch: NAME_loss and NAME_accuracy for each tally, and grad_norm.

    figures: by name, or what reads them from the device. That waits for the step, so it is called
    when a figure is first asked for.
    """

    def __init__(self, figures: Mapping[str, float] | Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def _read(self) -> Mapping[str, float]:
        if callable(self._figures):
            self._figures = self._figures()
        return self._figures

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

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

    Where there is no accelerator, accelerate must be told so: it would leave each process on its
    own.
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
            f"({str(error).splitlines()[0]}). Start all of them, with the same address and number "
            "of processes."
        ) from error


class Evaluator:
    """A model on whatever devices and processes accelerate finds.

    labels: for each of the model's tallies, the entry of a micro-batch that holds its labels.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, labels: Mapping[str, str]
    ) -> None:
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
                sums += self._figures(self.model(**self._on_device(batch)).tallies)
            for name, label in self._labels.items():
                counts[name] += self._count([batch], label)
        return _means(self._over_processes(sums).tolist(), self.totals(counts))

    def totals(self, values: dict[str, float]) -> dict[str, float]:
        """Each value summed over the processes, which all hold the same names."""
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(
            list(values.values()), dtype=torch.float64, device=self.accelerator.device
        )
        return dict(zip(values, self.accelerator.reduce(tensor, "sum").tolist(), strict=True))

    def _zeros(self) -> Tensor:
        """The sums of all figures, two for each of the model's tallies, before there is any."""
        return torch.zeros(
            2 * len(self._labels), dtype=torch.float64, device=self.accelerator.device
        )

    def _figures(self, tallies: Mapping[str, Tally]) -> Tensor:
        """What a micro-batch adds to the sums."""
        each = [
            figure
            for name in self._labels
            for figure in (tallies[name].loss.detach(), tallies[name].correct)
        ]
        return torch.stack([figure.double() for figure in each])

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return sums
        total: Tensor = self.accelerator.reduce(sums, "sum")
        return total

    def _count(self, micro_batches: Sequence[MicroBatch], label: str) -> float:
        # By numpy: torch would wake all of its threads for so little.
        return float(
            sum(np.count_nonzero(batch[label].numpy() != IGNORED) for batch in micro_batches)
        )

    def _on_device(self, batch: MicroBatch) -> dict[str, Tensor]:
        device = self.accelerator.device
        if (
            device.type == "cuda"
        ):  # which has to be waited for, unless it is copied to from pinned memory
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class PreparedStep(list[MicroBatch]):
    """This process's micro-batches of a step, as they are computed.

    counts: by tally, how many labels they have; tokens: how many places are no padding.
    """

    def __init__(
        self, micro_batches: Iterable[MicroBatch], counts: dict[str, float], tokens: float
    ) -> None:
        super().__init__(micro_batches)
        self.counts, self.tokens = counts, tokens


class Engine(Evaluator):
    """A model with its optimizer, which trains it by whole steps.

    deferred: no number of a step is read back before it is asked for. An update that must not
    happen is left out by the device itself. None: so on a CUDA device; on a CPU there is nothing to
    wait for. graphs: forward and backward of each shape as a CUDA graph; only deferred, and in one
    process.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        labels: Mapping[str, str],
        clip_norm: float,
        compile: bool,
        graphs: bool = False,
        deferred: bool | None = None,
    ) -> None:
        super().__init__(accelerator, model, labels)
        self._clip_norm = clip_norm
        self.optimizer = optimizer
        prepared = accelerator.prepare_model(self.model)
        self._forward = torch.compile(prepared, dynamic=False) if compile else prepared
        device = accelerator.device
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self._divisors = {name: torch.ones((), device=device) for name in labels}
        self._sums = self._zeros()
        self._gradients: FlatGradients | None = None
        self._graphs = Graphs(self._compute, accelerator) if graphs and self.deferred else None

    def prepare(self, micro_batches: Sequence[MicroBatch]) -> PreparedStep:
        """Count labels and tokens, and make the micro-batches ready for the device.

        To be called ahead, by the thread that makes them: a copy to a GPU is waited for unless it
        is from pinned memory, and whole numbers of 32 bits are half as many bytes.
        """
        counts = {name: self._count(micro_batches, label) for name, label in self._labels.items()}
        tokens = float(
            sum(np.count_nonzero(batch["attention_mask"].numpy()) for batch in micro_batches)
        )
        device = self.accelerator.device
        if device.type == "cuda":
            with torch.cuda.device(device):  # each thread has one of its own
                micro_batches = [
                    {name: _pinned(t) for name, t in batch.items()} for batch in micro_batches
                ]
        return PreparedStep(micro_batches, counts, tokens)

    def step(
        self, micro_batches: Sequence[MicroBatch], lr: float, keys: Sequence[int]
    ) -> StepResult:
        """Train on this process's micro-batches of a step.

        keys: one for each micro-batch; its dropout is drawn from it. The loss is the sum over all
        micro-batches of all processes divided by the counts over all of them, so its gradient is
        that of the whole batch. A gradient that is not finite leaves the weights as they were.
        """
        prepared = (
            micro_batches
            if isinstance(micro_batches, PreparedStep)
            else self.prepare(micro_batches)
        )
        self.model.train()
        counts = self.totals(prepared.counts)
        for name, divisor in self._divisors.items():
            divisor.fill_(max(1.0, counts[name]))
        self._sums.zero_()
        for number, (batch, key) in enumerate(zip(prepared, keys, strict=True)):
            torch.manual_seed(key)
            last = number == len(prepared) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self._forward):
                if self._graphs is not None:
                    self._graphs(batch, may_record=self._gradients is not None)
                else:
                    self._compute(
                        {
                            name: t.to(self.accelerator.device, non_blocking=True)
                            for name, t in batch.items()
                        }
                    )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        values = _on_its_way(self._update_deferred() if self.deferred else self._update())

        def read() -> dict[str, float]:
            *sums, norm = values()
            return {**_means(sums, counts), "grad_norm": norm}

        return StepResult(read if self.deferred else read())

    def _compute(self, inputs: MicroBatch) -> None:
        """Forward and backward of a micro-batch that is on the device; its figures are added to the step's."""
        inputs = {name: t.long() if t.dtype is torch.int32 else t for name, t in inputs.items()}
        tallies = self._forward(**inputs).tallies
        loss = sum(tally.loss / self._divisors[name] for name, tally in tallies.items())
        # Data parallelism averages the gradients of the processes, where the sum is due.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        self._sums += self._figures(tallies)

    def _update(self) -> Tensor:
        """Clip, and update the weights if all is finite; the figures of the step."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        values = self._values(norm)
        if values.isfinite().all():
            self.optimizer.step()
        self.optimizer.zero_grad()
        return values

    def _update_deferred(self) -> Tensor:
        """As `_update`, without a look at any number."""
        if self._gradients is None:
            self._gradients = FlatGradients(self.model.parameters())
        values = self._values(self._gradients.clip(self._clip_norm))
        bad = values.isfinite().all().logical_not()
        self._gradients.zero_where(bad)
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._gradients.zero()
        return values

    def _values(self, norm: Tensor) -> Tensor:
        """The step's sums and the gradient's norm, over all processes."""
        return torch.cat([self._over_processes(self._sums), norm.double().view(1)])


def _on_its_way(values: Tensor) -> Callable[[], list[float]]:
    """What waits for numbers of a device, which are copied as soon as they are computed."""
    if not values.is_cuda:
        return values.tolist
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> list[float]:
        done.synchronize()
        numbers: list[float] = copy.tolist()
        return numbers

    return wait


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in memory from which a GPU reads by itself; whole numbers in 32 bits."""
    dtype = torch.int32 if tensor.dtype is torch.int64 else tensor.dtype
    copy = torch.empty(tensor.shape, dtype=dtype, pin_memory=True)
    copy.numpy()[...] = tensor.numpy()
    return copy


def _means(sums: Iterable[float], counts: Mapping[str, float]) -> dict[str, float]:
    """Each figure over what has a label of its kind; none where nothing has."""
    each = iter(sums)
    found: dict[str, float] = {}
    for name, count in counts.items():
        loss, correct = next(each), next(each)
        if count:
            found |= {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}
    return found


def dropout_key(seed: int, step: int, micro_batch: int) -> int:
    """What to seed torch with before a micro-batch, numbered over all processes; 63 bits."""
    return int(hash64(seed, step, micro_batch)) >> 1
