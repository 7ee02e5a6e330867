"""All that is asked of one GPU, in one command of less than nine minutes: whether its numbers are right, and how fast.

    python scripts/bench_gpu.py [--corpus DIR] [--minutes 9] [--layers 12] [--json FILE]

    right    loss and gradients of each form of the model against the plain one in fp64, as the length of the difference
             to the length of the tensor, the worst of all tensors: fp32 within 1e-5, bf16 within 2e-2
    command  `sqzb pretrain` at both lengths with the recipe's global batch, micro_batch: auto, compiled, with kernels
             and without, on a corpus (or the text that every Python carries): medians of the last steps
    race     training steps beside BERT-base and SqueezeBERT of transformers (scripts/bench_model.py), compiled, bf16

What the time does not suffice for is said and left out. Without a GPU it runs through too, so that it can be tried
(--layers 1), and leaves the kernels out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import bench_model as bench
from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.bench.report import hardware
from sqzb.files import write_json
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.layers import use_kernels
from sqzb.recipe import PretrainRecipe, load_recipe

KERNELS = ("", "kernels") if bench.CUDA else ("",)
LIMITS = {"fp32": 1e-5, "bf16": 2e-2}
# Length, sequences of a step's race, so many that a GPU does not wait for Python, and the recipe.
PHASES = ((128, 640, "phase1_128"), (512, 160, "phase2_512")) if bench.CUDA else ((128, 2, "phase1_128"),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    report: dict[str, Any] = {"hardware": hardware(), "torch": torch.__version__, "left_out": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds, measure in parts(given.layers, given.corpus, Path(folder)):
            if time.monotonic() + seconds > end:
                report["left_out"].append(name)
                console.warn(f"{name}: left out, for it may take {seconds} s more than there are")
                continue
            started = time.monotonic()
            report[name] = measure()
            console.out.print(f"{name}: {time.monotonic() - started:.0f} s")
            if given.json:
                write_json(given.json, report)
    wrong = [name for name, error in report.get("right", {}).items() if error > LIMITS[name.split()[0]]]
    if wrong:
        sys.exit(f"not right: {', '.join(wrong)}")


def parts(layers: int, corpus: Path | None, folder: Path) -> Iterator[tuple[str, int, Any]]:
    """Name, the seconds that it may take, what measures it; the most needed first."""
    yield "right", 90, right
    for kernels in KERNELS[::-1]:
        for length, _, recipe in PHASES:
            name = f"command {length} {kernels}".strip()
            yield name, 90, lambda recipe=recipe, kernels=kernels: command(recipe, kernels, layers, corpus, folder)
        if kernels or not bench.CUDA:
            for length, batch, _ in PHASES:
                yield f"race {length}", 120, lambda length=length, batch=batch: race(length, batch, layers)


def right() -> dict[str, float]:
    """The largest error of a loss or gradient by form, printed too."""
    torch.manual_seed(0)
    rates: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    plain = SqueezeBertForPreTraining(SqueezeBertConfig(num_hidden_layers=2, initializer_range=0.05, **rates))
    batch = bench.batch(bench.Case("training", 4, 64, 1, "fp32"))
    due = gradients(plain, batch, torch.float64, False)
    found = {}
    for precision, kernels, compiled in [(p, k, c) for p in bench.DTYPES for k in KERNELS for c in (False, True)]:
        model = SqueezeBertForPreTraining(plain.config)
        model.load_state_dict(plain.state_dict())
        if kernels:
            use_kernels(model)
        got = gradients(model, batch, bench.DTYPES[precision], compiled)
        errors = [float((got[n] - due[n]).norm() / due[n].norm().clamp(min=1e-12)) for n in due]
        found[" ".join(filter(None, (precision, kernels, "compiled" if compiled else "eager")))] = max(errors)
    rows = [(name, f"{error:.1e}", f"{LIMITS[name.split()[0]]:.0e}") for name, error in found.items()]
    console.table("Against fp64", ("form", "largest error", "limit"), rows)
    return found


def gradients(
    model: SqueezeBertForPreTraining, batch: bench.Batch, number: torch.dtype, compiled: bool
) -> dict[str, torch.Tensor]:
    """Loss and gradients in fp64; bf16 is autocast, as in training."""
    model = model.to(bench.DEVICE, torch.float64 if number is torch.float64 else torch.float32).train()
    forward = torch.compile(model, dynamic=False) if compiled else model
    with torch.autocast(bench.DEVICE, torch.bfloat16, enabled=number is torch.bfloat16):
        tallies = forward(**batch).tallies
    loss = bench.mean_loss(tallies, batch)
    loss.backward()
    # Each row of a key's bias gets what softmax takes away again: its gradient is 0 but for rounding.
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "key.bias" not in name}
    return {"loss": loss.detach().double(), **{name: grad.double() for name, grad in named.items()}}


def command(recipe: str, kernels: str, layers: int, corpus: Path | None, folder: Path) -> dict[str, float]:
    """Medians of the last steps that `sqzb pretrain` logs, and places_per_second, padding among them."""
    run = folder / f"{recipe}{kernels}"
    if corpus is None:
        corpus = folder / "corpus"
        docs = ["sources.bookcorpus=null", "sources.wikipedia={path: python-docs}", "vocabulary.size=8000"]
        if not corpus.exists():
            run_sqzb("prepare-corpus", "recipes/corpus.yaml", "--output", str(corpus), *docs)
    sizes = ["steps=7"] if bench.CUDA else ["global_batch=4", "steps=4", "precision=fp32"]
    settings = ["micro_batch=auto", "log_every=1", "compile=true", f"kernels={str(bool(kernels)).lower()}"]
    # A model of its own in phase 2 too, so that none has to be trained first.
    model = ["start_from=null", f"model={{num_hidden_layers: {layers}}}"]
    run_sqzb("pretrain", f"recipes/{recipe}.yaml", f"corpus={corpus}", "--output", str(run), *sizes, *settings, *model)
    ran = load_recipe(PretrainRecipe, run / "recipe.yaml")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "tokens_per_second" in line]
    names = ("tokens_per_second", "mfu", "data_wait")
    found = {name: statistics.median(line[name] for line in steps[-5:]) for name in names}
    places = len(steps) * ran.global_batch * ran.sequence_length
    found |= {"places_per_second": round(found["tokens_per_second"] * places / steps[-1]["tokens"])}
    found |= {"micro_batch": ran.micro_batch}
    console.out.print(f"{recipe} {kernels}: {found}")
    return found


def race(length: int, batch: int, layers: int) -> dict[str, list[float]]:
    """Milliseconds of steps by contestant."""
    case = bench.Case("training", batch, length, torch.get_num_threads(), "bf16")
    models = [bench.BERT, bench.THEIRS, bench.KERNELS if bench.CUDA else bench.OURS]
    found = bench.race(case, [(model, "compiled") for model in models], layers, rounds=5)
    bench.show(case, found, {"flops": bench.matrix_rate(case), "bytes": bench.copy_rate(case)}, layers)
    return {f"{model}, {form}": figures.milliseconds for (model, form), figures in found.items()}


if __name__ == "__main__":
    main()
