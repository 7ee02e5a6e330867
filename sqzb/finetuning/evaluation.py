"""GLUE examples to batches, predictions and metrics."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb.finetuning import metrics
from sqzb.finetuning.data import Example
from sqzb.finetuning.tasks import Task
from sqzb.model import SqueezeBertForSequenceClassification
from sqzb.model.heads import IGNORED
from sqzb.tokenizer import special_ids
from sqzb.training.engine import MicroBatch

EVALUATION_BATCH = 32


class Encoded(NamedTuple):
    """Examples as token numbers, ready to be padded into batches."""

    ids: list[list[int]]
    types: list[list[int]]
    labels: NDArray[Any]  # float32 for regression, else int64
    pad: int

    @property
    def sha256(self) -> str:
        """Of all examples and their labels."""
        content = json.dumps([self.ids, self.types, self.labels.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> MicroBatch:
        """The examples `rows`, padded to the longest; a row under 0 is padding alone, without a label."""
        there = [(place, row) for place, row in enumerate(rows) if row >= 0]
        width = max((len(self.ids[row]) for _, row in there), default=1)
        ids = np.full((len(rows), width), self.pad)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in there:
            n = len(self.ids[row])
            ids[place, :n], types[place, :n], mask[place, :n] = self.ids[row], self.types[row], 1
        labels = np.where(np.asarray(rows) < 0, IGNORED, self.labels[rows]).astype(self.labels.dtype)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def encode(examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, regression: bool) -> Encoded:
    """[CLS] a [SEP] b [SEP], cut to `max_length` from the end of the longer segment, as transformers does.

    Examples without a label, as in test files, get one that does not count.
    """
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    texts = [e.text_a if e.text_b is None else (e.text_a, e.text_b) for e in examples]
    encodings = tokenizer.encode_batch(texts)
    tokenizer.no_truncation()
    labels = [IGNORED if e.label is None else e.label for e in examples]
    return Encoded(
        [encoding.ids for encoding in encodings],
        [encoding.type_ids for encoding in encodings],
        np.array(labels, np.float32 if regression else np.int64),
        special_ids(tokenizer).pad,
    )


@torch.no_grad()
def predict(
    model: SqueezeBertForSequenceClassification, encoded: Encoded, accelerator: Accelerator
) -> NDArray[np.float32]:
    """Logits (examples, labels) in the examples' order; batches are of similar lengths, to pad little."""
    model.eval()
    logits = np.empty((len(encoded.ids), model.config.num_labels), np.float32)
    for rows in _by_length(encoded):
        inputs = {name: t.to(accelerator.device) for name, t in encoded.batch(rows).items() if name != "labels"}
        with accelerator.autocast():
            logits[rows] = model(**inputs).logits.float().cpu().numpy()
    return logits


def _by_length(encoded: Encoded) -> Iterator[NDArray[np.int64]]:
    order = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]


def evaluate(
    model: SqueezeBertForSequenceClassification, encoded: Encoded, task: Task, accelerator: Accelerator
) -> dict[str, float]:
    """The task's metrics on labelled examples, and their mean as `score`."""
    logits = predict(model, encoded, accelerator)
    predictions = logits[:, 0] if task.regression else logits.argmax(1)
    figures = metrics.compute(task, predictions, encoded.labels)
    return figures | {"score": metrics.score(task, figures)}


def evaluate_splits(
    model: SqueezeBertForSequenceClassification, splits: Mapping[str, Encoded], task: Task, accelerator: Accelerator
) -> dict[str, float]:
    """The figures of `together` on the task's validation splits."""
    return together({split: evaluate(model, encoded, task, accelerator) for split, encoded in splits.items()})


def together(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metrics by split as those of the task: MNLI's have the half before them, as matched_accuracy. The one score
    is the mean of the splits'."""
    halves = {split: "".join(f"{half}_" for half in split.split("_")[1:]) for split in figures}
    named = {f"{halves[split]}{name}": value for split, of in figures.items() for name, value in of.items()}
    scores = [named.pop(f"{half}score") for half in halves.values()]
    return named | {"score": sum(scores) / len(scores)}


def majority(task: Task, encoded: Encoded) -> dict[str, float]:
    """The same figures for a model that always gives the commonest label, or the mean of a regression."""
    labels = encoded.labels
    constant = labels.mean() if task.regression else np.bincount(labels.astype(np.int64)).argmax()
    figures = metrics.compute(task, np.full_like(labels, constant), labels)
    return figures | {"score": metrics.score(task, figures)}
