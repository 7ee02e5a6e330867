"""Finetuning by one recipe, by `sqzb finetune` and by transformers' Trainer: whole commands, timed.

    python scripts/trainer_peer.py RECIPE.yaml --glue-dir FOLDER    # the run of Trainer

Trainer is used as in transformers' run_glue.py: batches in a random order, each padded to its
longest example, fused AdamW, evaluation in batches of eight. Both read the same files, evaluate and
save a checkpoint at the end of each epoch, keep the newest, and save the model at the end.
"""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.bench.report import parser
from sqzb.data import metrics
from sqzb.glue.tasks import Task, task
from sqzb.recipe import FinetuneRecipe, dump_recipe, load_recipe, number

SPLITS = ("train", "validation")

Figures = dict[str, float]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "recipe", type=Path, help="of one task that is no regression, with model and output"
    )
    arguments.add_argument("--glue-dir", type=Path, required=True)
    given = arguments.parse_args()
    train(load_recipe(FinetuneRecipe, given.recipe), given.glue_dir)


def copy_data(chosen: Task, glue_dir: Path, folder: Path, examples: int | None) -> None:
    """Copy GLUE's own training and validation file to `folder`.

    examples: number of training examples to copy; None copies all.
    """
    (folder / chosen.folders[0]).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = None
        if examples is not None and split == "train":
            lines = examples + (not chosen.header)  # plus 1 for a header line
        with (
            file(chosen, split, glue_dir).open("rb") as source,
            file(chosen, split, folder).open("wb") as copy,
        ):
            copy.writelines(islice(source, lines))


def file(chosen: Task, split: str, glue_dir: Path) -> Path:
    return glue_dir / chosen.folders[0] / chosen.files[split]


def sqzb_figures(output: Path, chosen: Task) -> Figures:
    last = json.loads((output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {"steps": last["step"]} | {name: last[f"validation_{name}"] for name in chosen.metrics}


def trainer_figures(output: Path, chosen: Task) -> Figures:
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    last = [entry for entry in state["log_history"] if "eval_loss" in entry][-1]
    return {"steps": state["global_step"]} | {name: last[f"eval_{name}"] for name in chosen.metrics}


# By name: Python's arguments before the recipe, and the function that reads the figures.
CONTESTANTS: dict[str, tuple[list[str], Callable[[Path, Task], Figures]]] = {
    "sqzb": (["-m", "sqzb", "finetune", "--recipe"], sqzb_figures),
    "transformers": ([__file__], trainer_figures),
}


def timed(contestant: str, recipe: FinetuneRecipe, glue_dir: Path, **environment: str) -> Figures:
    """Run the recipe in a process of its own, and return its figures; exit if it fails.

    The figures are the duration in seconds, the peak of resident memory in bytes, the number of
    steps and the task's metrics. Recipe and log lie beside the output.
    """
    arguments, figures = CONTESTANTS[contestant]
    output = Path(recipe.output or "")
    given, log = (output.with_name(output.name + suffix) for suffix in (".yaml", ".log"))
    given.write_text(dump_recipe(recipe), encoding="utf-8")
    with log.open("w") as output_file:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments, str(given), "--glue-dir", str(glue_dir)],
            stdout=output_file,
            stderr=subprocess.STDOUT,
            # Offline, so that no timed process waits for the network.
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    # wait4 alone returns the usage of one child, but Popen does not see the status then.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{output} failed:\n{log.read_text()}")
    console.out.print(f"{recipe.task}, {output.name}: {seconds:.1f} s")
    return {
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024,
        **figures(output, task(recipe.task or "")),
    }


def train(recipe: FinetuneRecipe, glue_dir: Path) -> None:
    """Train as transformers' run_glue.py does, with the recipe's settings."""
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        EvalPrediction,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    chosen, output = task(recipe.task or ""), Path(recipe.output or "")
    files = {split: str(file(chosen, split, glue_dir)) for split in SPLITS}
    reading = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "keep_default_na": False}
    columns = {"column_names": list(chosen.header)} if chosen.header else {}
    splits = load_dataset(
        "csv", data_files=files, cache_dir=str(output / "cache"), **reading, **columns
    )
    tokenizer = AutoTokenizer.from_pretrained(recipe.model)

    def tokenise(rows: dict[str, list[Any]]) -> Any:
        texts = [rows[column] for column in chosen.file_columns]
        encoded = tokenizer(*texts, max_length=recipe.max_length, truncation=True)
        return encoded | {
            "labels": [chosen.file_labels.index(str(label)) for label in rows[chosen.file_label]]
        }

    splits = splits.map(tokenise, batched=True, remove_columns=splits["train"].column_names)

    def measure(seen: EvalPrediction) -> Figures:
        return metrics.compute(chosen.metrics, seen.predictions.argmax(1), seen.label_ids)  # type: ignore[union-attr]

    set_seed(recipe.seed)
    keys = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout = {} if recipe.dropout is None else dict.fromkeys(keys, recipe.dropout)
    runner = Trainer(
        # The published weights are stored in fp16, and would be trained in it.
        AutoModelForSequenceClassification.from_pretrained(
            recipe.model, num_labels=chosen.kind.outputs, dtype=torch.float32, **dropout
        ),
        TrainingArguments(
            str(output),
            num_train_epochs=number(recipe.epochs),
            per_device_train_batch_size=recipe.batch,
            learning_rate=number(recipe.lr),
            warmup_steps=recipe.warmup,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip_norm,
            lr_scheduler_type="linear",
            seed=recipe.seed,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=recipe.keep_checkpoints,
            report_to="none",
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        compute_metrics=measure,
    )
    runner.train()
    runner.save_model()
    runner.save_state()


if __name__ == "__main__":
    main()
