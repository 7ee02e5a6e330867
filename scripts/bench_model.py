"""Time of a forward and of a training step beside transformers' BERT-base and SqueezeBERT.

    python scripts/bench_model.py [--work inference] [--batch 16] [--length 128] [--threads 2]
        [--precision bf16] [--model sqzb] [--form eager] [--layers 12] [--rounds 5] [--json FILE]

Each option may be given several times, and selects the cases that it names. Without options
everything is measured, which takes more than an hour on two cores. The script serves a CPU and a
GPU, where --threads has no effect.

    inference  last hidden states and pooler without gradients; bf16 means weights in bf16
    training   forward, backward and optimizer on batches of 16: masked tokens (15 %) and the order
               of two segments, with dropout; bf16 means autocast over weights in fp32; LAMB for
               sqzb, fused AdamW for the others
    roof       the time that the arithmetic needs at the rate of a large matrix product, measured
               before each case, as a share of the time taken; a line below gives the time that
               sqzb's traffic needs at the rate of a large copy, if each operation moves its input
               and output once

Every contestant is a process of its own. The contestants take turns, one call each in a round, and
one alone works at a time. A process of sqzb is set up as by its commands (`tune_cpu`); "sqzb's
process" is the same set-up around BERT-base.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from sqzb import console
from sqzb.bench.race import Spread
from sqzb.bench.race import race as in_turns
from sqzb.bench.report import parser, write_report
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining, SqueezeBertModel
from sqzb.model.costs import TRAINING, Cost, costs, total
from sqzb.model.heads import LossSum
from sqzb.model.layers import use_kernels
from sqzb.training.cpu import tune_cpu
from sqzb.training.lamb import Lamb
from sqzb.training.optimizers import parameter_groups

BERT, THEIRS, TUNED, OURS = "BERT-base", "HF SqueezeBERT", "BERT-base, sqzb's process", "sqzb"
KERNELS = "sqzb, kernels"  # on a GPU
MODELS, FORMS, WORK = (BERT, THEIRS, TUNED, OURS), ("eager", "compiled"), ("inference", "training")
EAGER, COMPILED = FORMS
TRAINING_BATCH, MASKED = 16, 0.15
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Call = Callable[[], object]
Batch = Mapping[str, Tensor]


class Case(NamedTuple):
    work: str
    batch: int
    length: int
    threads: int
    precision: str

    def __str__(self) -> str:
        threads = "" if CUDA else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.work}, batch {self.batch} x {self.length}{threads}, {self.precision}"

    @property
    def predictions(self) -> int:
        """Masked tokens of a sequence."""
        return round(MASKED * self.length)


class Figures(NamedTuple):
    milliseconds: list[float]
    peak_bytes: int


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--work", action="append", choices=WORK)
    arguments.add_argument("--batch", action="append", type=int)
    arguments.add_argument("--length", action="append", type=int)
    arguments.add_argument("--threads", action="append", type=int)
    arguments.add_argument("--precision", action="append", choices=tuple(DTYPES))
    arguments.add_argument("--model", action="append", choices=(*MODELS, KERNELS))
    arguments.add_argument("--form", action="append", choices=FORMS)
    arguments.add_argument("--layers", type=int, default=12, help="fewer for a quick look")
    given = arguments.parse_args()
    contestants = list(itertools.product(given.model or MODELS, given.form or FORMS))
    measured: list[dict[str, Any]] = []
    for case in cases(given):
        machine = {"flops": matrix_rate(case), "bytes": copy_rate(case)}
        found = race(case, contestants, given.layers, given.rounds)
        show(case, found, machine, given.layers)
        named = {f"{model}, {form}": figures._asdict() for (model, form), figures in found.items()}
        measured.append(case._asdict() | {"peak_rates": machine, "contestants": named})
        write_report(given.json, layers=given.layers, cases=measured)


def cases(given: argparse.Namespace) -> list[Case]:
    threads = given.threads or ([1] if CUDA else sorted({1, os.cpu_count() or 1}))
    lengths, precisions = given.length or [128, 512], given.precision or list(DTYPES)
    found = []
    for work in given.work or WORK:
        training = work == "training"
        batches = [TRAINING_BATCH] if training and not given.batch else given.batch or [1, 16]
        counts = threads[-1:] if training and not given.threads else threads
        found += [
            Case(work, *rest) for rest in itertools.product(batches, lengths, counts, precisions)
        ]
    return found


# The contest


def race(
    case: Case, contestants: list[tuple[str, str]], layers: int, rounds: int
) -> dict[tuple[str, str], Figures]:
    context = multiprocessing.get_context("spawn")
    lines: dict[tuple[str, str], Connection] = {}
    for contestant in contestants:
        lines[contestant], theirs = context.Pipe()
        context.Process(
            target=compete, args=(theirs, case, *contestant, layers), daemon=True
        ).start()
        theirs.close()
    for contestant, line in lines.items():
        answer(contestant, line)  # warm

    def told(word: str, contestant: tuple[str, str]) -> Callable[[int], Any]:
        def measure(number: int) -> Any:
            lines[contestant].send(word)
            return answer(contestant, lines[contestant])

        return measure

    times = in_turns({contestant: told("call", contestant) for contestant in contestants}, rounds)
    peaks = in_turns({contestant: told("peak", contestant) for contestant in contestants}, rounds=1)
    for line in lines.values():
        line.close()
    return {
        contestant: Figures(times[contestant], peaks[contestant][0]) for contestant in contestants
    }


def answer(contestant: tuple[str, str], line: Connection) -> Any:
    try:
        return line.recv()
    except EOFError:
        sys.exit(
            f"{', '.join(contestant)}: its process has ended. All of a race are in memory at "
            "once; where that is too little, race fewer, by --model and --form."
        )


def compete(line: Connection, case: Case, model: str, form: str, layers: int) -> None:
    """Run a contestant's process: make a call each time that one is asked for."""
    torch.set_num_threads(case.threads)
    if model in (TUNED, OURS, KERNELS):
        tune_cpu()
    torch.manual_seed(0)
    call = {"inference": inference, "training": training}[case.work](
        case, model, form == "compiled", layers
    )
    for _ in range(3):
        timed(call)
    line.send("warm")
    try:
        while (asked := line.recv()) != "end":
            line.send(timed(call) if asked == "call" else peak_bytes())
    except EOFError:
        pass


def timed(call: Call) -> float:
    """Return the duration of a call in milliseconds."""
    started = time.perf_counter()
    call()
    if CUDA:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def peak_bytes() -> int:
    """Return the peak memory of the device, or of the whole process on a CPU."""
    if CUDA:
        return torch.cuda.max_memory_allocated()
    # Not getrusage, whose peak includes the process before exec.
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


# What is timed


def inference(case: Case, name: str, compiled: bool, layers: int) -> Call:
    model = encoder(name, layers).eval().to(DEVICE, DTYPES[case.precision])
    forward = torch.compile(model, dynamic=False) if compiled else model
    inputs = {
        key: value for key, value in batch(case).items() if key in ("input_ids", "attention_mask")
    }

    @torch.inference_mode()
    def call() -> object:
        return forward(**inputs)

    return call


def training(case: Case, name: str, compiled: bool, layers: int) -> Call:
    model = pretrainer(name, layers).train().to(DEVICE)
    optimizer = make_optimizer(name, model)
    forward = torch.compile(model, dynamic=False) if compiled else model
    inputs = batch(case)

    def call() -> object:
        with torch.autocast(DEVICE, torch.bfloat16) if case.precision == "bf16" else nullcontext():
            loss = forward(**inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return call


def batch(case: Case) -> Batch:
    shape = (case.batch, case.length)
    positions = torch.stack(
        [torch.randperm(case.length)[: case.predictions].sort().values for _ in range(case.batch)]
    )
    made = {
        "input_ids": torch.randint(1000, 30000, shape),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "token_type_ids": (torch.arange(case.length) >= case.length // 2)
        .long()
        .repeat(case.batch, 1),
        "mlm_positions": positions,
        "mlm_labels": torch.randint(1000, 30000, (case.batch, case.predictions)),
        "sop_labels": torch.randint(0, 2, (case.batch,)),
    }
    return {name: tensor.to(DEVICE) for name, tensor in made.items()}


def encoder(name: str, layers: int) -> nn.Module:
    if name in (OURS, KERNELS):
        ours = SqueezeBertModel(SqueezeBertConfig(num_hidden_layers=layers))
        if name == KERNELS:
            use_kernels(ours)
        return ours
    if name in (BERT, TUNED):
        return transformers.BertModel(bert_base(layers))
    return transformers.SqueezeBertModel(transformers.SqueezeBertConfig(num_hidden_layers=layers))


def bert_base(layers: int) -> transformers.BertConfig:
    config = transformers.BertConfig(num_hidden_layers=layers)
    config._attn_implementation = "sdpa"
    return config


def pretrainer(name: str, layers: int) -> nn.Module:
    return Ours(layers, name == KERNELS) if name in (OURS, KERNELS) else Theirs(name, layers)


class Ours(nn.Module):
    def __init__(self, layers: int, kernels: bool = False) -> None:
        super().__init__()
        self.model = SqueezeBertForPreTraining(SqueezeBertConfig(num_hidden_layers=layers))
        if kernels:
            use_kernels(self.model)

    def forward(self, **inputs: Tensor) -> Tensor:
        return mean_loss(self.model(**inputs).loss_sums, inputs)


def mean_loss(loss_sums: Mapping[str, LossSum], inputs: Batch) -> Tensor:
    """Return the sum of the mean losses of a batch in which every label counts, as in `batch`."""
    return torch.stack(
        [loss_sum.loss / inputs[f"{name}_labels"].numel() for name, loss_sum in loss_sums.items()]
    ).sum()


class Theirs(nn.Module):
    """A peer's model: masked-token predictions at every position, and a pair head on the pooler."""

    def __init__(self, name: str, layers: int) -> None:
        super().__init__()
        if name in (BERT, TUNED):
            whole: Any = transformers.BertForPreTraining(bert_base(layers))
            self.encoder, self.head = whole.bert, whole.cls.predictions
            self.pair = whole.cls.seq_relationship
        else:
            whole = transformers.SqueezeBertForMaskedLM(
                transformers.SqueezeBertConfig(num_hidden_layers=layers)
            )
            self.encoder, self.head, self.pair = whole.transformer, whole.cls, nn.Linear(768, 2)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        mlm_positions: Tensor,
        mlm_labels: Tensor,
        sop_labels: Tensor,
    ) -> Tensor:
        hidden, pooled = self.encoder(input_ids, attention_mask, token_type_ids, return_dict=False)
        labels = torch.full_like(input_ids, -100).scatter(1, mlm_positions, mlm_labels)
        mlm = cross_entropy(self.head(hidden).flatten(0, 1), labels.flatten())
        return mlm + cross_entropy(self.pair(pooled), sop_labels)


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    groups = parameter_groups(model, weight_decay=0.01)
    if name in (OURS, KERNELS):
        return Lamb(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
    return torch.optim.AdamW(groups, lr=1e-4, fused=True)


# What the machine can do


def matrix_rate(case: Case, n: int = 4096) -> float:
    """Return the best rate of a large matrix product in the case's precision, in FLOP/s."""
    torch.set_num_threads(case.threads)
    a, b = (torch.randn(n, n, device=DEVICE, dtype=DTYPES[case.precision]) for _ in range(2))
    return 2 * n**3 / (min(timed(lambda: linear(a, b)) for _ in range(5)) / 1e3)


def copy_rate(case: Case, megabytes: int = 1024) -> float:
    """Return the best rate of a large copy, read and written, in bytes a second."""
    source = torch.ones(megabytes * 2**18, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / (min(timed(lambda: target.copy_(source)) for _ in range(5)) / 1e3)


def needs(case: Case, name: str, layers: int) -> Cost:
    """Return the FLOPs of the whole call, and the bytes of activations and parameters.

    Each byte is counted once in each direction.
    """
    config = SqueezeBertConfig(num_hidden_layers=layers)
    if name in (BERT, TUNED):
        grouped = (field for field in SqueezeBertConfig.model_fields if field.endswith("_groups"))
        config = config.model_copy(update=dict.fromkeys(grouped, 1))
    training = case.work == "training"
    predictions, labels = (case.predictions, 2) if training else (0, 0)
    size = DTYPES[case.precision].itemsize
    cost = total(costs(config, case.batch, case.length, predictions, labels, size))
    times = TRAINING if training else 1
    return Cost(times * cost.flops, cost.parameters, times * (cost.bytes + size * cost.parameters))


def show(
    case: Case, found: Mapping[tuple[str, str], Figures], machine: Mapping[str, float], layers: int
) -> None:
    spreads = {contestant: Spread.of(figures.milliseconds) for contestant, figures in found.items()}
    medians = {contestant: spread.middle for contestant, spread in spreads.items()}
    rows = []
    for (model, form), figures in found.items():
        median = medians[model, form]
        peers = (
            medians.get((peer, EAGER), medians.get((peer, COMPILED))) for peer in (BERT, THEIRS)
        )
        ratios = ("" if peer is None else f"{peer / median:.2f}" for peer in peers)
        rows.append(
            (
                f"{model}, {form}",
                f"{median:,.0f}",
                spreads[model, form].ends(",.0f"),
                f"{case.batch * case.length / median * 1e3:,.0f}",
                *ratios,
                f"{figures.peak_bytes / 1e9:.1f}",
                f"{needs(case, model, layers).flops / machine['flops'] / median * 1e3:.0%}",
            )
        )
    columns = (str(case), "ms", "spread", "tok/s", "x BERT", "x HF", "GB", "roof")
    console.table("", columns, rows)
    ours = needs(case, OURS, layers)
    console.out.print(
        f"{machine['flops'] / 1e12:.2f} TFLOP/s, {machine['bytes'] / 1e9:.0f} GB/s: sqzb's "
        f"arithmetic would take {ours.flops / machine['flops'] * 1e3:,.0f} ms, its traffic "
        f"{ours.bytes / machine['bytes'] * 1e3:,.0f} ms"
    )


if __name__ == "__main__":
    main()
