"""How long finetuning on MRPC takes, beside transformers' Trainer with the published architecture, the same settings.

    python scripts/bench_finetune.py --vocab VOCAB.TXT --glue-dir FOLDER [--epochs 1] [--examples N] [--rounds 2]
        [--json FILE]
    python scripts/bench_finetune.py --model FOLDER_OR_HUB_ID --glue-dir FOLDER

Contestants, whole processes that take turns, from their start to their end, in fp32 on whatever accelerate finds:
    sqzb          `sqzb finetune`; it saves a checkpoint at each epoch's end, and final/
    transformers  Trainer as in transformers' run_glue.py: padded batch by batch, AdamW fused, evaluation in eights; it
                  saves a checkpoint every 500 steps and at the end, and the model
Both evaluate at the end of each epoch. With --vocab the model has the published sizes and random weights, and the
accuracies say little.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from sqzb import console

BATCH, MAX_LENGTH, LR, WARMUP, WEIGHT_DECAY = 16, 128, 3e-5, 0.1, 0.01
TRAIN, VALIDATION = "MRPC/train.tsv", "MRPC/dev.tsv"

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--model", help="a saved model or a Hub id, with a tokenizer")
    start.add_argument("--vocab", type=Path, help="vocab.txt or tokenizer.json, for a model with random weights")
    parser.add_argument("--glue-dir", type=Path, required=True, help=f"GLUE's own files: {TRAIN} and {VALIDATION}")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, help="train on the first so many only")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trainer", type=Path, help=argparse.SUPPRESS)  # the child: where Trainer writes
    given = parser.parse_args()
    if given.trainer:
        trainer(given.model, given.glue_dir, given.trainer, given.epochs)
        return
    found: dict[str, list[Figures]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, data = start_model(given.model, given.vocab, folder / "start"), folder / "glue"
        copy_data(given.glue_dir, data, given.examples)
        for number in range(given.rounds):
            for name, contestant in CONTESTANTS.items():
                output = folder / f"{name}-{number}"
                found[name].append(measure(name, contestant, model, data, output, given.epochs))
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


def start_model(model: str | None, vocab: Path | None, folder: Path) -> Path:
    """The folder both start from: a Hub id is downloaded before anything is timed."""
    if vocab is None:
        from sqzb.hub import local_folder

        return local_folder(model or "")
    import torch
    from transformers import SqueezeBertConfig, SqueezeBertForSequenceClassification

    from sqzb.tokenizer import load_tokenizer, save_tokenizer

    torch.manual_seed(0)
    config = SqueezeBertConfig()  # the published sizes
    SqueezeBertForSequenceClassification(config).save_pretrained(folder)
    save_tokenizer(load_tokenizer(vocab), folder, config.max_position_embeddings)
    return folder


def copy_data(glue_dir: Path, folder: Path, examples: int | None) -> None:
    (folder / "MRPC").mkdir(parents=True)
    for name, lines in ((TRAIN, None if examples is None else examples + 1), (VALIDATION, None)):  # 1: the header
        with (glue_dir / name).open("rb") as source, (folder / name).open("wb") as copy:
            copy.writelines(islice(source, lines))


# Contestants: (model, GLUE's folder, a folder to write to, epochs) -> the arguments of Python; and what it wrote


def sqzb_command(model: Path, data: Path, output: Path, epochs: int) -> list[str]:
    settings = {"epochs": epochs, "batch": BATCH, "max_length": MAX_LENGTH, "lr": LR, "warmup": WARMUP}
    pairs = [f"{key}={value}" for key, value in (settings | {"weight_decay": WEIGHT_DECAY}).items()]
    places = ["--model", str(model), "--glue-dir", str(data), "--output", str(output)]
    return ["-m", "sqzb", "finetune", "--task", "mrpc", *places, *pairs]


def sqzb_figures(output: Path) -> Figures:
    last = json.loads((output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {"steps": last["step"], "accuracy": last["validation_accuracy"]}


def trainer_command(model: Path, data: Path, output: Path, epochs: int) -> list[str]:
    places = ["--model", str(model), "--glue-dir", str(data), "--trainer", str(output)]
    return [__file__, *places, "--epochs", str(epochs)]


def trainer_figures(output: Path) -> Figures:
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    accuracies = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
    return {"steps": state["global_step"], "accuracy": accuracies[-1]}


Contestant = tuple[Callable[[Path, Path, Path, int], list[str]], Callable[[Path], Figures]]
CONTESTANTS: dict[str, Contestant] = {
    "sqzb": (sqzb_command, sqzb_figures),
    "transformers": (trainer_command, trainer_figures),
}


def trainer(model: str, data: Path, output: Path, epochs: int) -> None:
    """What transformers' run_glue.py does with these settings."""
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        EvalPrediction,
        Trainer,
        TrainingArguments,
    )

    files = {"train": str(data / TRAIN), "validation": str(data / VALIDATION)}
    reading = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "keep_default_na": False}
    splits = load_dataset("csv", data_files=files, cache_dir=str(output / "cache"), **reading)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokenise(rows: dict[str, list[Any]]) -> Any:
        encoded = tokenizer(rows["#1 String"], rows["#2 String"], max_length=MAX_LENGTH, truncation=True)
        return encoded | {"label": rows["Quality"]}

    splits = splits.map(tokenise, batched=True, remove_columns=splits["train"].column_names)

    def accuracy(seen: EvalPrediction) -> dict[str, float]:
        return {"accuracy": float((seen.predictions.argmax(1) == seen.label_ids).mean())}  # type: ignore[union-attr]

    runner = Trainer(
        # The published weights are stored in fp16, and would be trained in it.
        AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32),
        TrainingArguments(
            str(output),
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            warmup_steps=WARMUP,
            weight_decay=WEIGHT_DECAY,
            eval_strategy="epoch",
            report_to="none",
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    runner.train()
    runner.save_model()
    runner.save_state()


def measure(name: str, contestant: Contestant, model: Path, data: Path, output: Path, epochs: int) -> Figures:
    """Run the contestant from the start of its process to the end; its peak is that of resident memory."""
    command, figures = contestant
    log = output.with_suffix(".log")
    with log.open("w") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command(model, data, output, epochs)],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},  # nothing that is timed waits for the network
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    # wait4, which alone tells the usage of one child, took the status from under Popen.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed:\n{log.read_text()}")
    measured = {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024, **figures(output)}
    console.out.print(f"{name}: {seconds:.1f} s")
    return measured


def show(found: dict[str, list[Figures]]) -> None:
    reference = statistics.median(run["seconds"] for run in found["sqzb"])
    rows = []
    for name, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        median = statistics.median(seconds)
        spread = f"{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        peak = console.size(int(max(run["peak_bytes"] for run in runs)))
        accuracy = statistics.median(run["accuracy"] for run in runs)
        rows.append((name, f"{runs[0]['steps']:,}", spread, f"{median / reference:.2f}", peak, f"{accuracy:.1%}"))
    header = ("contestant", "steps", "seconds (spread)", "ratio", "memory", "accuracy")
    console.table(f"Finetuning on MRPC, batches of {BATCH}", header, rows)


if __name__ == "__main__":
    main()
