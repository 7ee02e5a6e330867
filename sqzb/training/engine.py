"""One optimizer step, equal for any division of the batch into micro-batches and processes."""

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
from sqzb.model.heads import IGNORED, LossSum
from sqzb.training.averaging import WeightAverage
from sqzb.training.cpu import tune_cpu
from sqzb.training.gradients import FlatGradients
from sqzb.training.graphs import Graphs, UpdateGraph
from sqzb.training.norms import clip
from sqzb.training.transfers import CopiesAhead, copied_to_host, pinned

MicroBatch = Mapping[str, Tensor]

SHAPES = 32  # of micro-batches that a compiled run has, at most
PATIENCE = timedelta(minutes=10)  # after which a process that does not answer counts as lost


class StepResult(Mapping[str, float]):
    """Figures of a step over the global batch: NAME_loss, NAME_accuracy and grad_norm.

    figures: by name, or a function that reads them from the device. Reading waits for the step to
    end, so it happens when a figure is first used.
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
        """The minimised loss: the sum of the mean losses."""
        return sum(value for name, value in self.items() if name.endswith("_loss"))

    @property
    def finite(self) -> bool:
        """Whether all figures are finite."""
        return all(math.isfinite(value) for value in self.values())


def chosen_precision(asked: str) -> str:
    """Return "fp32" or "bf16": for "auto", bf16 on a GPU with bf16 units."""
    if asked != "auto":
        return asked
    on_gpu = torch.cuda.is_available()
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def start_accelerator(precision: str = "fp32") -> Accelerator:
    """Join the processes that accelerate or torchrun launched, on the available devices.

    Without a GPU, accelerate has to be given `cpu`: otherwise it would leave each process on its
    own.

    Raises:
        PeerLost: a process did not join in time.
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
    """A model on the devices and processes that accelerate finds.

    labels: for each loss of the model, the entry of a micro-batch that holds its labels.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, labels: Mapping[str, str]
    ) -> None:
        self.accelerator = accelerator
        self.model = model.to(accelerator.device)
        self._labels = labels

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch]) -> dict[str, float]:
        """Return NAME_loss and NAME_accuracy over all processes' micro-batches, without dropout."""
        self.model.eval()
        sums = self._zeros()
        counts = dict.fromkeys(self._labels, 0.0)
        for batch in micro_batches:
            with self.accelerator.autocast():
                sums += self._figures(self.model(**self._on_device(batch)).loss_sums)
            for name, label in self._labels.items():
                counts[name] += self._count([batch], label)
        return _means(self._over_processes(sums).tolist(), self.totals(counts))

    def totals(self, values: dict[str, float]) -> dict[str, float]:
        """Sum each value over the processes, which all have the same names."""
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(
            list(values.values()), dtype=torch.float64, device=self.accelerator.device
        )
        return dict(zip(values, self.accelerator.reduce(tensor, "sum").tolist(), strict=True))

    def _zeros(self) -> Tensor:
        """Return zero sums of all figures, two for each loss of the model."""
        return torch.zeros(
            2 * len(self._labels), dtype=torch.float64, device=self.accelerator.device
        )

    def _figures(self, loss_sums: Mapping[str, LossSum]) -> Tensor:
        """Return a micro-batch's contribution to the sums."""
        figures = []
        for name in self._labels:
            figures += [loss_sums[name].loss.detach().double(), loss_sums[name].correct.double()]
        return torch.stack(figures)

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return sums
        total: Tensor = self.accelerator.reduce(sums, "sum")
        return total

    def _count(self, micro_batches: Sequence[MicroBatch], label: str) -> float:
        # By numpy, because torch would wake all of its threads for this small work.
        counts = [np.count_nonzero(batch[label].numpy() != IGNORED) for batch in micro_batches]
        return float(sum(counts))

    def _on_device(self, batch: MicroBatch) -> dict[str, Tensor]:
        device = self.accelerator.device
        if device.type == "cuda":
            # A copy to a GPU is asynchronous only from pinned memory.
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class PreparedStep(list[MicroBatch]):
    """This process's micro-batches of a step, ready for the device.

    counts: number of labels of each loss.
    tokens: number of tokens that are not padding.
    copies: the micro-batches on the device; None: they are copied when they are computed.
    """

    def __init__(
        self,
        micro_batches: Iterable[MicroBatch],
        counts: dict[str, float],
        tokens: float,
        copies: CopiesAhead | None = None,
    ) -> None:
        super().__init__(micro_batches)
        self.counts, self.tokens, self.copies = counts, tokens, copies


class Engine(Evaluator):
    """A model with its optimizer, trained by whole steps.

    deferred: never wait for a number of a step before it is used; the device itself then omits an
    update of numbers that are not finite. None: on a CUDA device only, because a CPU never waits.
    graphs: run forward and backward of each shape, and the update, as CUDA graphs; only deferred,
    and in one process.
    copy_ahead: copy micro-batches to a CUDA device in the thread that makes them; False until set.

    average: the mean of the weights over the last steps, if the run has one.
    """

    average: WeightAverage | None = None

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
        if compile:
            # Lengths times masking rates; torch stops to compile after eight shapes by default.
            torch._dynamo.config.recompile_limit = SHAPES
        self._forward = torch.compile(prepared, dynamic=False) if compile else prepared
        device = accelerator.device
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self._divisors = {name: torch.ones((), device=device) for name in labels}
        self._sums = self._zeros()
        self._gradients: FlatGradients | None = None
        self._graphs: Graphs | None = None
        self._update_once: Callable[[], Tensor] = self._update
        if self.deferred:
            self._update_once = self._update_deferred
        if graphs and self.deferred:
            self._graphs = Graphs(self._compute, accelerator)
            self._update_once = UpdateGraph(self._update_deferred, optimizer, accelerator)
        self.copy_ahead = False
        self._copy_stream: torch.cuda.Stream | None = None

    def prepare(self, micro_batches: Sequence[MicroBatch]) -> PreparedStep:
        """Count labels and tokens, and prepare the micro-batches for the device.

        The thread that makes the micro-batches calls it ahead of the step. A copy to a GPU is
        asynchronous only from pinned memory, and int32 halves the bytes.
        """
        counts = {name: self._count(micro_batches, label) for name, label in self._labels.items()}
        lengths = [np.count_nonzero(batch["attention_mask"].numpy()) for batch in micro_batches]
        tokens = float(sum(lengths))
        device = self.accelerator.device
        if device.type == "cuda":
            with torch.cuda.device(device):  # the current device is a setting of each thread
                micro_batches = [pinned(batch, self.copy_ahead) for batch in micro_batches]
                if self.copy_ahead:
                    self._copy_stream = self._copy_stream or torch.cuda.Stream(device)
                    copies = CopiesAhead(micro_batches, self._copy_stream)
                    return PreparedStep(micro_batches, counts, tokens, copies)
        return PreparedStep(micro_batches, counts, tokens)

    def step(
        self, micro_batches: Sequence[MicroBatch], lr: float, keys: Sequence[int]
    ) -> StepResult:
        """Train on this process's micro-batches of a step.

        keys: the seed of each micro-batch's dropout.

        The loss is the sum over all micro-batches of all processes divided by the counts over all
        of them, so its gradient is that of the whole batch. If a loss or a gradient is not finite,
        the weights do not change.
        """
        if not isinstance(micro_batches, PreparedStep):
            micro_batches = self.prepare(micro_batches)
        prepared: PreparedStep = micro_batches
        device = self.accelerator.device
        self.model.train()
        counts = self.totals(prepared.counts)
        for name, divisor in self._divisors.items():
            divisor.fill_(max(1.0, counts[name]))
        self._sums.zero_()

        batches = prepared if prepared.copies is None else prepared.copies.taken()
        for number, (batch, key) in enumerate(zip(batches, keys, strict=True)):
            _seed(key, device)
            last = number == len(prepared) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self._forward):
                if self._graphs is not None:
                    self._graphs(batch, may_record=self._gradients is not None)
                else:
                    inputs = {name: t.to(device, non_blocking=True) for name, t in batch.items()}
                    self._compute(inputs)

        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        values = copied_to_host(self._update_once())

        def read() -> dict[str, float]:
            *sums, norm = values()
            return {**_means(sums, counts), "grad_norm": norm}

        return StepResult(read if self.deferred else read())

    def _compute(self, inputs: MicroBatch) -> None:
        """Run forward and backward of a micro-batch on the device; add its figures to the sums."""
        small = (torch.int32, torch.int8)
        inputs = {name: t.long() if t.dtype in small else t for name, t in inputs.items()}
        loss_sums = self._forward(**inputs).loss_sums
        loss = sum(loss_sum.loss / self._divisors[name] for name, loss_sum in loss_sums.items())
        # Data parallelism averages the gradients over processes, but the step needs their sum.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        self._sums += self._figures(loss_sums)

    def _update(self) -> Tensor:
        """Clip the gradients, update the weights if all is finite, and return the figures."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        values = self._values(clip(gradients, self._clip_norm))
        if values.isfinite().all():
            self.optimizer.step()
        self.optimizer.zero_grad()
        return values

    def _update_deferred(self) -> Tensor:
        """Update as `_update`, without reading a number from the device."""
        if self._gradients is None:
            self._gradients = FlatGradients(self.model.parameters())
        values = self._values(self._gradients.clip(self._clip_norm))
        not_finite = values.isfinite().all().logical_not()
        self._gradients.zero_where(not_finite)
        self.optimizer.found_inf = not_finite.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._gradients.zero()
        return values

    def _values(self, norm: Tensor) -> Tensor:
        """Return the step's sums and the gradient's norm, over all processes."""
        return torch.cat([self._over_processes(self._sums), norm.double().view(1)])


def _seed(seed: int, device: torch.device) -> None:
    """Seed the draws of the device that trains.

    `torch.manual_seed` seeds every other kind of device too. Where these have not been used it
    notes the call, with the stack, for later: 4 ms each time, which are for nothing on a CPU.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _means(sums: Iterable[float], counts: Mapping[str, float]) -> dict[str, float]:
    """Return each figure's mean over its labels; leave out losses without labels."""
    each = iter(sums)
    means: dict[str, float] = {}
    for name, count in counts.items():
        loss, correct = next(each), next(each)
        if count:
            means |= {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}
    return means


def dropout_key(seed: int, step: int, micro_batch: int) -> int:
    """Return the seed of a micro-batch's dropout, of 63 bits.

    micro_batch: its number in the step, counted over all processes.
    """
    return int(hash64(seed, step, micro_batch)) >> 1
