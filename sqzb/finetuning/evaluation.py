"""Examples to batches, predictions and metrics."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb.data import metrics
from sqzb.data.dataset import Classes, DataSet, Example, Kind, Number
from sqzb.errors import UserError
from sqzb.model.heads import IGNORED
from sqzb.model.open import Classifier
from sqzb.tokenizer import special_ids
from sqzb.training.engine import MicroBatch

EVALUATION_BATCH = 32
FEW = 500  # examples, under which a score says little of the order of the labels


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

    def first(self, n: int) -> "Encoded":
        """The first n examples."""
        return Encoded(self.ids[:n], self.types[:n], self.labels[:n], self.pad)

    def with_more(self, other: "Encoded") -> "Encoded":
        """These examples, then another set's from the same tokenizer."""
        labels = np.concatenate([self.labels, other.labels])
        return Encoded(self.ids + other.ids, self.types + other.types, labels, self.pad)

    def batch(self, rows: Sequence[int] | NDArray[np.int64], unit: int = 1, most: int = 0) -> MicroBatch:
        """The examples `rows`, padded to the longest; a row under 0 is padding alone, without a label.

        unit, most: pad further to a multiple of `unit`, but not over `most`.
        """
        there = [(place, row) for place, row in enumerate(rows) if row >= 0]
        width = max((len(self.ids[row]) for _, row in there), default=1)
        width = max(width, min(-(-width // unit) * unit, most))
        ids = np.full((len(rows), width), self.pad)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in there:
            n = len(self.ids[row])
            ids[place, :n], types[place, :n], mask[place, :n] = self.ids[row], self.types[row], 1
        labels = np.where(np.asarray(rows) < 0, IGNORED, self.labels[rows]).astype(self.labels.dtype)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def encode(examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, kind: Kind) -> Encoded:
    """[CLS] a [SEP] b [SEP], cut to `max_length` from the end of the longer segment, as transformers does.

    Examples without a label, as in test files, get one that does not count. The padding is the tokenizer's own, or
    BERT's where that has none.
    """
    padding = tokenizer.padding
    pad = padding["pad_id"] if padding else special_ids(tokenizer).pad
    tokenizer.no_padding()  # batches are padded when they are made
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    texts = [e.text_a if e.text_b is None else (e.text_a, e.text_b) for e in examples]
    encodings = tokenizer.encode_batch(texts)
    tokenizer.no_truncation()
    if padding:
        tokenizer.enable_padding(**padding)
    labels = [IGNORED if e.label is None else e.label for e in examples]
    return Encoded(
        [encoding.ids for encoding in encodings],
        [encoding.type_ids for encoding in encodings],
        np.array(labels, np.float32 if isinstance(kind, Number) else np.int64),
        pad,
    )


def predict(model: Classifier, encoded: Encoded, accelerator: Accelerator) -> NDArray[np.float32]:
    """Return logits (examples, labels) in the examples' order; batches are of similar lengths, to pad little.

    This process predicts all of them, whatever the others do.
    """
    return _logits_of(model, encoded, accelerator, list(_by_length(encoded)))


def predict_together(model: Classifier, encoded: Encoded, accelerator: Accelerator) -> NDArray[np.float32]:
    """Return the logits of `predict` in every process, each of which predicts its share of the batches.

    All processes of the run have to call this function.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    logits = _logits_of(model, encoded, accelerator, list(_by_length(encoded))[rank::processes])
    if processes == 1:
        return logits
    # Each row is computed by one process and zero in the others, so the sum is exact.
    total: NDArray[np.float32] = (
        accelerator.reduce(torch.from_numpy(logits).to(accelerator.device), "sum").cpu().numpy()
    )
    return total


@torch.no_grad()
def _logits_of(
    model: Classifier, encoded: Encoded, accelerator: Accelerator, batches: Sequence[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Logits (examples, labels), zero for the examples that are in no batch."""
    model.eval()
    logits = np.zeros((len(encoded.ids), model.config.num_labels), np.float32)
    for rows in batches:
        inputs = {name: t.to(accelerator.device) for name, t in encoded.batch(rows).items() if name != "labels"}
        with accelerator.autocast():
            logits[rows] = model(**inputs).logits.float().cpu().numpy()
    return logits


def _by_length(encoded: Encoded) -> Iterator[NDArray[np.int64]]:
    order = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]


def evaluate(model: Classifier, encoded: Encoded, data: DataSet, accelerator: Accelerator) -> dict[str, float]:
    """Return the data set's metrics on labelled examples, and their mean as `score`; all processes share the work."""
    return measure(data, decide(data.kind, predict_together(model, encoded, accelerator)), encoded)


def decide(kind: Kind, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Label indices (examples), or numbers for regression, from logits (examples, labels)."""
    decided: NDArray[Any] = logits[:, 0] if isinstance(kind, Number) else logits.argmax(1)
    return decided


def measure(data: DataSet, predictions: NDArray[Any], encoded: Encoded) -> dict[str, float]:
    """The data set's metrics of predictions (examples), and their mean as `score`."""
    figures = metrics.compute(data.metrics, predictions, encoded.labels)
    return figures | {"score": metrics.score(data.metrics, figures)}


def evaluate_splits(
    model: Classifier, splits: Mapping[str, Encoded], data: DataSet, accelerator: Accelerator
) -> dict[str, float]:
    """Return the figures of `together` on the validation splits; all processes share the work."""
    return together({split: evaluate(model, encoded, data, accelerator) for split, encoded in splits.items()})


def together(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics by split as those of the data set, and their mean as the one score.

    MNLI's metrics have the half before them, as matched_accuracy.
    """
    halves = {split: "".join(f"{half}_" for half in split.split("_")[1:]) for split in figures}
    named = {f"{halves[split]}{name}": value for split, of in figures.items() for name, value in of.items()}
    scores = [named.pop(f"{half}score") for half in halves.values()]
    return named | {"score": sum(scores) / len(scores)}


def majority(data: DataSet, encoded: Encoded) -> dict[str, float]:
    """The same figures for a model that always gives the commonest label, or the mean of a regression."""
    labels = encoded.labels
    constant = labels.mean() if isinstance(data.kind, Number) else np.bincount(labels.astype(np.int64)).argmax()
    return measure(data, np.full_like(labels, constant), encoded)


def outputs_of(data: DataSet, id2label: Mapping[int, str], source: object, warn: Callable[[str], None]) -> list[int]:
    """Where the model has each of the data set's labels among its outputs, by their names in whatever case.

    Labels are matched by name, not by index: code bases number MNLI's labels differently, and matching by index drops
    a good model to 4 to 7 % accuracy (transformers#10401). Names that say nothing (LABEL_0, LABEL_1 ...) are taken for
    the data set's order, with a warning.

    source: the model, for messages; warn: takes the warning.

    Raises:
        UserError: The names are other ones.
    """
    names = [id2label[number] for number in range(len(id2label))]
    plain = [name.casefold() for name in names]
    labels = data.kind.names
    if isinstance(data.kind, Number) and len(names) == 1:
        return [0]
    if labels and plain == [f"label_{number}" for number in range(len(labels))]:
        warn(
            f"The model in {source} does not name its labels ({', '.join(names)}); they are taken for "
            f"{', '.join(labels)}, in this order. Where it is another, name them in its config.json (id2label)."
        )
        return list(range(len(labels)))
    if labels and sorted(plain) == sorted(label.casefold() for label in labels):
        return [plain.index(label.casefold()) for label in labels]
    raise UserError(
        f"The model in {source} has the label{'s' if len(names) > 1 else ''} {', '.join(names)}, and {data.name} has "
        f"{', '.join(labels) or 'a number in their place'}. Give the task that it was finetuned on."
    )


def confusion(classes: Classes, predictions: NDArray[Any], encoded: Encoded) -> NDArray[np.int64]:
    """(labels, labels): how many examples of each label, a row, were given each label, a column."""
    k = classes.outputs
    return np.bincount(encoded.labels * k + predictions, minlength=k * k).reshape(k, k)


def under_chance(counts: NDArray[np.int64]) -> str | None:
    """A sentence to warn with where a confusion matrix has fewer hits than if labels and predictions were drawn
    independently, as often as they are there: by 5 standard deviations, on 500 examples or more.

    Unlike 1 / labels, that chance also holds for a model that gives the rarest label only.
    """
    n = int(counts.sum())
    hits, chance = counts.trace() / max(1, n), counts.sum(0) @ counts.sum(1) / max(1, n) ** 2
    if n < FEW or hits >= chance - 5 * np.sqrt(chance * (1 - chance) / n):
        return None
    return (
        f"The accuracy, {hits:.1%}, is clearly under that of chance, {chance:.1%}: the model tells the labels apart, "
        "but their order is most likely another than id2label in its config.json says: other code bases number MNLI's "
        "labels in another order. Compare with how it was trained."
    )


def losses(kind: Kind, logits: NDArray[np.float32], encoded: Encoded) -> NDArray[np.float64]:
    """Of each example (examples): cross-entropy in nats, or the squared error."""
    if isinstance(kind, Number):
        return np.asarray((logits[:, 0].astype(np.float64) - encoded.labels) ** 2)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = np.take_along_axis(shifted, encoded.labels[:, None], 1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(1)) - right)
