"""A finetuning has the losses of transformers' Trainer, where both have the same examples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from conftest import WORDS
from glue_runs import tiny
from sqzb.data.dataset import DataSet
from sqzb.finetuning.data import open_data
from sqzb.finetuning.encode import encode, on_scale
from sqzb.finetuning.job import Finetuning, finetune
from sqzb.finetuning.order import Order
from sqzb.model import SqueezeBertForSequenceClassification
from sqzb.recipe import FinetuneRecipe
from sqzb.tokenizer import load_tokenizer, train_tokenizer

STEPS, BATCH, EXAMPLES, MAX_LENGTH = 50, 8, 80, 128
TASKS = {
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", ("entailment", "not_entailment")),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        ("0.5", "1.2", "2.0", "3.75", "5.0"),
    ),
}


class InOrder(Trainer):
    """Transformers' Trainer, with the examples in the order in which they are given."""

    def _get_train_sampler(self, train_dataset=None):  # type: ignore[no-untyped-def]
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_those_of_transformers_trainer(tmp_path: Path, task: str) -> None:
    write_task(task, tmp_path / "glue")
    names = ("score",) if task == "stsb" else TASKS[task][2]
    write_model(tmp_path / "model", dict(enumerate(names)))
    recipe = FinetuneRecipe(
        task=task,
        glue_dir=str(tmp_path / "glue"),
        model=str(tmp_path / "model"),
        output=str(tmp_path / "run"),
        epochs=STEPS * BATCH // EXAMPLES,
        batch=BATCH,
        lr=1e-3,
        warmup=0,
        weight_decay=0.01,
        dropout=0,
        clip_norm=1,
        max_length=MAX_LENGTH,
        seed=3,
        log_every=1,
    )
    data = open_data(recipe)
    start = Finetuning(recipe, data, tmp_path / "unused")  # has the run's new head
    start.model.save_pretrained(tmp_path / "start", start.tokenizer)
    finetune(recipe, data)

    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    figures = [json.loads(line) for line in lines]
    losses = {line["step"]: line["task_loss"] for line in figures if "task_loss" in line}
    assert list(losses) == list(range(1, STEPS + 1))
    theirs = losses_of_trainer(recipe, data, tmp_path / "start")
    assert losses[1] != pytest.approx(losses[STEPS], rel=0.01)
    assert list(losses.values()) == pytest.approx(theirs, abs=1e-5, rel=1e-5)


def write_task(task: str, glue: Path) -> None:
    folder, header, labels = TASKS[task]
    draws = np.random.default_rng(0)
    (glue / folder).mkdir(parents=True)
    for name, count in (("train.tsv", EXAMPLES), ("dev.tsv", BATCH)):
        lines = [header]
        for row in range(count):
            texts = [" ".join(draws.choice(WORDS, draws.integers(2, 9))) for _ in range(2)]
            blank = [str(row)] * (header.count("\t") - 2)
            lines.append("\t".join([*blank, *texts, str(draws.choice(labels))]))
        (glue / folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_model(folder: Path, labels: dict[int, str]) -> None:
    torch.manual_seed(0)
    vocabulary = train_tokenizer([" ".join(WORDS)] * 2, 90, lowercase=True)
    config = tiny(
        vocabulary.get_vocab_size(),
        initializer_range=0.2,
        id2label=labels,
        max_position_embeddings=MAX_LENGTH,
    )
    SqueezeBertForSequenceClassification(config).save_pretrained(folder, vocabulary)


def losses_of_trainer(recipe: FinetuneRecipe, data: DataSet, start: Path) -> list[float]:
    """Return the losses of Trainer's steps, on sqzb's batches, padded to their longest."""
    examples, _ = data.read("train")
    tokenizer = AutoTokenizer.from_pretrained(start)
    encoded = encode(examples, load_tokenizer(start), MAX_LENGTH, data.kind)
    labels = on_scale(data.kind, encoded).labels.tolist()
    samples = [
        {"input_ids": ids, "token_type_ids": types, "labels": label}
        for ids, types, label in zip(encoded.ids, encoded.types, labels, strict=True)
    ]
    order = Order(list(map(len, encoded.ids)), BATCH, recipe.seed)
    rows = np.concatenate([order.rows_of_step(step) for step in range(STEPS)])

    keys = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(start, **keys)
    arguments = TrainingArguments(
        str(start.with_name("trainer")),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        warmup_steps=0,
        weight_decay=0.01,
        max_grad_norm=1,
        lr_scheduler_type="linear",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = InOrder(
        model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=[samples[row] for row in rows],
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
