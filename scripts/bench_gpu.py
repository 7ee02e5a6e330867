"""Each switch of training off and on against each other on one GPU, within 8 minutes by its limits.

    python scripts/bench_gpu.py [--minutes 8] [--json FILE] [--logs DIR]    # the switches
    python scripts/bench_gpu.py --corpus DIR --only step [--glue-dir DIR --vocab VOCAB.TXT]
    python scripts/bench_gpu.py --dry-run                       # tiny sizes, on a CPU too

Nothing is needed but the checkout and its packages: without --corpus, the script makes up a text
and prepares it. Each section runs in a process of its own, so that no section affects another.
--only selects sections by the beginning of their name. Sections that run by default:

    right     loss and gradients of each form of the model against the plain one in fp64: the norm
              of the difference over the norm of the tensor, the worst of all tensors; fp32 within
              1e-5, bf16 within 2e-2
    switch    training steps of two recipes in turns: ms of a step with the switch off and on, the
              ratio (above 1: on is faster) with its spread over rounds, million nominal positions a
              second, and the memory of each in GB (scripts/gpu_switches.py)
    finetune  the same for steps of finetuning: off is without CUDA graphs or copies ahead, on is
              with; compare "off" of fp32 and bf16 for the precision

Sections that run if they are named, because they take longer or need more:

    step    training steps of a recipe as `sqzb pretrain` takes them, with a thread that makes the
            examples: nominal positions a second, and milliseconds of a step's parts: `wall`, the
            whole; `made`, examples made by the thread; `data`, waiting for it; `host`, Python's
            part; on the GPU `compute`, from the step's begin to the last backward, and `update`,
            clip and optimizer; `idle`, the share of the wall in which no kernel runs. --logs keeps
            the kernels that take most of the time
    tune    finetuning on MRPC's files, whole commands: sqzb, and transformers' Trainer
            (scripts/trainer_peer.py) with its SqueezeBERT and with BERT-base, from random weights
            of the published sizes
    race    training steps beside BERT-base and SqueezeBERT of transformers (scripts/bench_model.py)

A section that may take longer than the time that is left is skipped, and reported as skipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

import gpu_switches
from gpu_switches import SWITCHES, TUNINGS, Driven

SCRIPTS = Path(__file__).parent
RESULT = "RESULT "
LIMITS = {"fp32": 1e-5, "bf16": 2e-2}
ONE = ["global_batch=512", "micro_batch=512"]  # a step of 512 x 128 in one micro-batch

EAGER = ["compile=false", "kernels=true"] if torch.cuda.is_available() else ["compile=false"]

# By name: the time limit in seconds, the recipe, its overrides and the number of steps.
Step = tuple[int, str, list[str], int]
STEPS: dict[str, Step] = {
    "step 512x128, compiled": (90, "phase1_128", [*ONE, "graphs=false"], 24),
    "step 512x128, compiled, graphs": (60, "phase1_128", [*ONE, "graphs=true"], 24),
    "step 512x128, eager": (40, "phase1_128", [*ONE, *EAGER, "graphs=false"], 16),
    "step 512x128, eager, graphs": (40, "phase1_128", [*ONE, *EAGER, "graphs=true"], 30),
    "step phase 1, by 512, eager, graphs": (
        50,
        "phase1_128",
        ["micro_batch=512", *EAGER, "graphs=true"],
        10,
    ),
    "step phase 1, by 256, eager, graphs": (
        50,
        "phase1_128",
        ["micro_batch=256", *EAGER, "graphs=true"],
        10,
    ),
    "step phase 1, by 1024, eager, graphs": (
        50,
        "phase1_128",
        ["micro_batch=1024", *EAGER, "graphs=true"],
        10,
    ),
    "step phase 2, by 128, eager, graphs": (
        70,
        "phase2_512",
        ["micro_batch=128", *EAGER, "graphs=true"],
        5,
    ),
    "step phase 1, by 512, compiled, graphs": (
        240,
        "phase1_128",
        ["micro_batch=512", "graphs=true"],
        10,
    ),
    "step phase 1, by 1024, compiled, graphs": (
        170,
        "phase1_128",
        ["micro_batch=1024", "graphs=true"],
        8,
    ),
    "step phase 1, by 2048, compiled": (200, "phase1_128", ["micro_batch=2048", "graphs=false"], 8),
    "step phase 2, by 128, compiled, graphs": (
        240,
        "phase2_512",
        ["micro_batch=128", "graphs=true"],
        5,
    ),
}
TINY = ["precision=fp32", "compile=false", "global_batch=8", "micro_batch=4"]
# By name: the contestant, the kind of model, and the overrides of sqzb's recipe.
TUNE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tune sqzb, bf16, kernels, graphs": (
        "sqzb",
        "squeezebert",
        {"precision": "bf16", "kernels": True, "graphs": True},
    ),
    "tune sqzb, fp32": ("sqzb", "squeezebert", {}),
    "tune Trainer, SqueezeBERT": ("transformers", "squeezebert", {}),
    "tune Trainer, BERT-base": ("transformers", "bert", {}),
}
RACES = {"race 128": (128, 640), "race 512": (512, 160)}
COMPILED = "right, compiled"
DEFAULT = ("right", *SWITCHES, *TUNINGS)
# Seconds of the sections that run by default: with the text, under 8 minutes in sum.
SECONDS = {"right": 90, **dict.fromkeys(SWITCHES, 34), **dict.fromkeys(TUNINGS, 25)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--glue-dir", type=Path)
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", action="append", help="a section's name, or its beginning")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=1, help="of finetuning")
    parser.add_argument("--tiny", "--dry-run", action="store_true", help="sizes for a CPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--logs", type=Path, help="a folder for what each section says")
    parser.add_argument(
        "--starts", type=Path, help="a folder to keep the models in that finetuning starts from"
    )
    parser.add_argument("--make-starts", action="store_true", help="make these and nothing else")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # the section of a child process
    given = parser.parse_args()
    if given.make_starts:
        for kind in ("squeezebert", "bert"):
            start(kind, given.vocab, given.starts / kind, given.layers, given.tiny)
        return
    if given.alone:
        print(RESULT + json.dumps(section(given.alone)(given)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.corpus is None:
            given.corpus = Path(folder) / "corpus"
            gpu_switches.make_corpus(given.corpus, given.tiny)
        report = run_sections(given, Path(folder))
    show(report)


def names(given: argparse.Namespace) -> list[str]:
    every = [*DEFAULT, COMPILED, *STEPS, *TUNE, *RACES]
    if not given.glue_dir or not given.vocab:
        every = [name for name in every if name not in TUNE]
    if not given.only:
        return list(DEFAULT)
    return [name for name in every if any(is_meant(name, wanted) for wanted in given.only)]


def is_meant(name: str, wanted: str) -> bool:
    """Return whether a section's name begins with the words that are wanted."""
    return name.startswith(wanted) and name[len(wanted) :][:1] in ("", " ", ",")


def run_sections(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    end = time.monotonic() + 60 * given.minutes
    report: dict[str, Any] = {}
    logs = given.logs or folder
    logs.mkdir(parents=True, exist_ok=True)
    options = {"--corpus": given.corpus, "--glue-dir": given.glue_dir, "--vocab": given.vocab}
    options |= {"--layers": given.layers, "--epochs": given.epochs, "--starts": given.starts}
    arguments = [
        text for name, value in options.items() if value is not None for text in (name, str(value))
    ]
    for name in names(given):
        left = end - time.monotonic()
        limit = limit_of(name) if not given.tiny else 120  # a CPU imports slowly
        if left < limit / 2:
            report[name] = {"left out": f"{left:.0f} s left"}
            continue
        started = time.monotonic()
        command = [sys.executable, __file__, *arguments, *["--tiny"] * given.tiny, "--alone", name]
        log = logs / (name.replace(" ", "_").replace(",", "") + ".log")
        try:
            ended = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=min(left, limit),
            )
            said, code = ended.stdout, ended.returncode
        except subprocess.TimeoutExpired as error:
            said, code = (error.stdout or b"").decode(), -1
        log.write_text(said, encoding="utf-8")
        lines = [line for line in said.splitlines() if line.startswith(RESULT)]
        report[name] = (
            json.loads(lines[-1].removeprefix(RESULT))
            if lines
            else {"failed": said[-1500:], "code": code}
        )
        report[name]["took"] = round(time.monotonic() - started)
        warned = [line for line in said.splitlines() if "graphs:" in line]
        print(f"{name}: {json.dumps(report[name])[:900]} {warned}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(report, indent=1))
    return report


def limit_of(name: str) -> int:
    """Return the seconds after which a section is ended."""
    return STEPS[name][0] if name in STEPS else SECONDS.get(name, 120)


def section(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    if name in ("right", COMPILED):
        return lambda given: right(given.tiny, name == COMPILED)
    if name in SWITCHES:
        return lambda given: gpu_switches.switch(name, given.corpus, given.layers, given.tiny)
    if name in TUNINGS:
        return lambda given: gpu_switches.tuning(name, given.corpus, given.layers, given.tiny)
    if name in STEPS:
        return lambda given: steps(name, given)
    if name in TUNE:
        return lambda given: tune(name, given)
    return lambda given: race(name, given.layers)


def show(report: dict[str, Any]) -> None:
    """Print a table of the figures, of at most 40 lines."""
    for text in table(report):
        print(text)


def table(report: dict[str, Any]) -> list[str]:
    """Return the lines of the table: the races, then the steps, then everything else."""
    races = {name: found for name, found in report.items() if "ratio" in found}
    steps = {name: found for name, found in report.items() if "wall" in found}
    lines = [gpu_switches.HEADER] if races else []
    lines += [gpu_switches.line(name, found) for name, found in races.items()]
    columns = ("wall", "made", "data", "host", "compute", "update", "idle")
    if steps:
        heads = "".join(f"{column:>9}" for column in columns)
        lines.append(f"{'section':42} {'M places/s':>10}{heads}")
    for name, found in steps.items():
        parts = [found.get(column) for column in columns]
        shown = "".join("        -" if part is None else f"{part:9.2f}" for part in parts)
        lines.append(f"{name:42} {found['places'] / 1e6:10.3f}{shown}")
    for name, found in report.items():
        if name not in races and name not in steps:
            rest = {key: value for key, value in found.items() if key not in ("took", "peak_bytes")}
            lines.append(f"{name:42} {json.dumps(rest)[:160]}")
    return lines


# Steps


def steps(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return medians of a step's parts, its first losses, and the share of time the GPU works."""
    from sqzb.pretraining.job import Pretraining
    from sqzb.recipe import PretrainRecipe, load_recipe
    from sqzb.recipe.shipped import named

    _, recipe_name, overrides, count = STEPS[name]
    model = [
        "start_from=null",
        f"model={{num_hidden_layers: {given.layers}}}",
        f"corpus={given.corpus}",
    ]
    sizes = "hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 1, intermediate_size: 64"
    small = [*TINY, f"model={{{sizes}}}"] if given.tiny else []
    wanted = [*model, *overrides, *small]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(PretrainRecipe, named(recipe_name), wanted, output=folder)
        job = Pretraining(recipe, Path(folder))
        job.prepare()
        engine = job.make_engine()
        cuda = torch.cuda.is_available()
        events = watch_update(engine) if cuda else []
        ran = Driven(job, engine)
        ran.go(count)
        kept = slice(count // 2, None)  # compiled, captured and warm
        found: dict[str, Any] = {
            "wall": round(1e3 * statistics.median(ran.walls[kept][:-1]), 2),
            "data": round(1e3 * statistics.median(ran.waits[kept]), 2),
            "host": round(1e3 * statistics.median(ran.hosts[kept]), 2),
            "made": round(1e3 * statistics.median(ran.made[kept]), 2),
            "losses": ran.losses[:8],
            "walls": [round(1e3 * wall, 1) for wall in ran.walls],
        }
        if cuda:
            torch.cuda.synchronize()
            parts = [
                (begin.elapsed_time(middle), middle.elapsed_time(end))
                for begin, middle, end in events[kept]
            ]
            if parts:
                found["compute"], found["update"] = (
                    round(statistics.median(part), 2) for part in zip(*parts, strict=True)
                )
            found["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
            found["reserved"] = round(torch.cuda.max_memory_reserved() / 1e9, 1)
        places = recipe.global_batch * recipe.sequence_length
        computed = sum(batch["input_ids"].numel() for batch in job.micro_batches(0))
        found |= {
            "places": round(1e3 * places / found["wall"]),
            "computed": round(computed / places, 3),
        }
        if cuda:
            found |= busy(ran, found["wall"], 4 if found["wall"] < 200 else 1)
        ran.pool.shutdown()
    return found


def watch_update(engine: Any) -> list[Any]:
    """Record three events a step: before the step, before its update and behind it."""
    events: list[Any] = []
    step, update = engine.step, engine._update_once

    def watched_step(*arguments: Any) -> Any:
        events.append([torch.cuda.Event(enable_timing=True) for _ in range(3)])
        events[-1][0].record()
        return step(*arguments)

    def watched_update() -> Any:
        events[-1][1].record()
        values = update()
        events[-1][2].record()
        return values

    engine.step, engine._update_once = watched_step, watched_update
    return events


def busy(ran: Driven, wall: float, count: int) -> dict[str, Any]:
    """Return the share of a step without a running kernel, by torch's profiler; print the rest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        ran.go(count)
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in kernels) / 1e3 / count
    most = sorted(kernels, key=lambda event: -event.self_device_time_total)[:14]
    for event in most:
        print(
            f"{event.self_device_time_total / 1e3 / count:9.3f} ms {event.count // count:6} "
            f"{event.key[:110]}"
        )
    launches = sum(event.count for event in kernels) // count
    return {"busy": round(total, 2), "idle": round(1 - total / wall, 3), "launches": launches}


# Correctness


def right(tiny: bool, compiled_too: bool) -> dict[str, float]:
    """Return the largest error of a loss or gradient by form; of no form of a tiny model."""
    import bench_model as bench
    from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
    from sqzb.model.layers import use_kernels

    torch.manual_seed(0)
    rates: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    plain = SqueezeBertForPreTraining(
        SqueezeBertConfig(num_hidden_layers=2, initializer_range=0.05, **rates)
    )
    batch = with_padding(bench.batch(bench.Case("training", 4, 64, 1, "fp32")))
    due = gradients(plain, batch, torch.float64, False)
    found = {}
    kernels_or_not = ("", "kernels") if bench.CUDA else ("",)
    forms = [*product(bench.DTYPES, kernels_or_not, ("eager",), ("", "unpad", "fused_loss"))]
    if compiled_too:
        forms = [*product(bench.DTYPES, kernels_or_not, ("compiled",), ("",))]
    forms += [("bf16", kernels_or_not[-1], "compiled", "unpad fused_loss")]
    for form in [] if tiny else forms:
        precision, kernels, compiled, switches = form
        model = SqueezeBertForPreTraining(plain.config)
        model.load_state_dict(plain.state_dict())
        if kernels:
            use_kernels(model)
        model.fused_loss = "fused_loss" in switches
        inputs = without_padding(batch) if "unpad" in switches else batch
        got = gradients(model, inputs, bench.DTYPES[precision], compiled == "compiled")
        errors = [float((got[n] - due[n]).norm() / due[n].norm().clamp(min=1e-12)) for n in due]
        found[" ".join(filter(None, form))] = max(errors)
    wrong = [form for form, error in found.items() if error > LIMITS[form.split()[0]]]
    if wrong:
        sys.exit(f"not right: {', '.join(wrong)}")
    return found


def with_padding(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch with fewer tokens in each sequence, and the predictions among them."""
    mask = batch["attention_mask"].clone()
    for number in range(len(mask)):
        mask[number, mask.shape[1] - 7 * number :] = 0
    tokens = mask.sum(1, keepdim=True)
    positions = batch["mlm_positions"] % tokens
    return {**batch, "attention_mask": mask, "mlm_positions": positions}


def without_padding(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the same batch in rows without padding, with rows to spare."""
    from sqzb.pretraining.examples import Batch, unpadded

    arrays = Batch(**{name: tensor.cpu().numpy() for name, tensor in batch.items()})
    tokens, asked = int(arrays.attention_mask.sum()), arrays.mlm_labels.size
    rows = unpadded(arrays, tokens + 50, asked, 0)._asdict()
    device = batch["input_ids"].device
    return {name: torch.from_numpy(array).to(device) for name, array in rows.items()}


def gradients(model: Any, batch: Any, number: Any, compiled: bool) -> dict[str, Any]:
    """Return loss and gradients in fp64; bf16 is autocast, as in training."""
    import bench_model as bench

    model = model.to(
        bench.DEVICE, torch.float64 if number is torch.float64 else torch.float32
    ).train()
    forward = torch.compile(model, dynamic=False) if compiled else model
    with torch.autocast(bench.DEVICE, torch.bfloat16, enabled=number is torch.bfloat16):
        loss_sums = forward(**batch).loss_sums
    loss = bench.mean_loss(loss_sums, batch)
    loss.backward()
    # The bias of keys adds the same to all scores of a query: its gradient is 0 but for rounding.
    named = {
        name: p.grad
        for name, p in model.named_parameters()
        if p.grad is not None and "key.bias" not in name
    }
    return {"loss": loss.detach().double(), **{name: grad.double() for name, grad in named.items()}}


# Finetuning


def tune(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the duration of one whole command, and its figures."""
    from sqzb.glue.tasks import task
    from sqzb.recipe import FinetuneRecipe
    from trainer_peer import copy_data, timed

    contestant, kind, changes = TUNE[name]
    if given.tiny:
        changes = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = (given.starts or folder) / kind
        start(kind, given.vocab, made, given.layers, given.tiny)
        copy_data(task("mrpc"), given.glue_dir, folder / "glue", 64 if given.tiny else None)
        recipe = FinetuneRecipe(
            task="mrpc",
            model=str(made),
            epochs=given.epochs,
            output=str(folder / "run"),
            **changes,
        )
        found: dict[str, Any] = dict(timed(contestant, recipe, folder / "glue"))
        print((folder / "run.log").read_text()[-3000:])
        metrics = folder / "run" / "metrics.jsonl"
        if metrics.exists():
            lines = [json.loads(line) for line in metrics.read_text().splitlines()]
            found["tokens_per_second"] = [
                line.get("tokens_per_second") for line in lines if "lr" in line
            ][:40]
    return found


def start(kind: str, vocab: Path, folder: Path, layers: int, tiny: bool) -> None:
    """Save a classifier with random weights, unless the folder exists."""
    if folder.exists():
        return
    import transformers

    from sqzb.tokenizer import load_tokenizer, save_tokenizer

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_hidden_layers": layers}
    if tiny:
        sizes |= {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "embedding_size": 64,
        }
    if kind == "bert":
        sizes.pop("embedding_size", None)
        config: Any = transformers.BertConfig(**sizes)
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    else:
        config = transformers.SqueezeBertConfig(**sizes)
        transformers.SqueezeBertForSequenceClassification(config).save_pretrained(folder)
    save_tokenizer(load_tokenizer(vocab), folder, config.max_position_embeddings)


# Races


def race(name: str, layers: int) -> dict[str, Any]:
    """Return the median time of a step in milliseconds by contestant."""
    import bench_model as bench

    length, batch = RACES[name] if bench.CUDA else (128, 2)
    case = bench.Case(
        "training", batch, length, torch.get_num_threads(), "bf16" if bench.CUDA else "fp32"
    )
    models: Sequence[str] = [bench.BERT, bench.THEIRS, bench.KERNELS if bench.CUDA else bench.OURS]
    found = bench.race(case, [(model, "compiled") for model in models], layers, rounds=5)
    return {
        model: round(statistics.median(figures.milliseconds), 1)
        for (model, _), figures in found.items()
    }


if __name__ == "__main__":
    main()
