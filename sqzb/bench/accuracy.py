"""The figures of a race's cells on labelled examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqzb import console
from sqzb.bench.cells import CellFailed, CellProcess
from sqzb.bench.contestants import Contestant
from sqzb.bench.results import Entry
from sqzb.bench.texts import Texts, for_accuracy
from sqzb.errors import UserError
from sqzb.finetuning.evaluation import decide
from sqzb.finetuning.evaluation import measure as measure_logits
from sqzb.finetuning.finetuned import Finetuned, open_finetuned
from sqzb.model.heads import ClassificationOutput


class CellClassifier(nn.Module):
    """A classifier that the process of a cell computes."""

    process: CellProcess

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> ClassificationOutput:
        """Return the logits, as the model in torch does."""
        inputs = {
            "input_ids": input_ids.numpy(),
            "attention_mask": attention_mask.numpy(),
            "token_type_ids": token_type_ids.numpy(),
        }
        logits = np.array(self.process.outputs(inputs)[0])
        return ClassificationOutput(torch.from_numpy(logits), {})


def classifiers(
    texts: Texts, own: Sequence[Contestant], others: Sequence[Contestant]
) -> dict[str, Finetuned]:
    """Return the contestants that can be measured on the texts, by title.

    Their models are `CellClassifier`s without a process. Others are left out where they have
    other labels.

    Raises:
        UserError: the model itself does not fit the labels.
    """
    if texts.data is None:
        return {}
    by_title = {}
    for contestant in (*own, *others):
        if not contestant.is_trained or contestant.record is not None or not contestant.id2label:
            continue
        try:
            finetuned = open_finetuned(contestant.folder, texts.data)
        except UserError:
            if contestant in own:
                raise
            continue
        classifier: Any = CellClassifier(finetuned.model.config)
        by_title[contestant.title] = finetuned._replace(
            model=classifier, max_length=contestant.max_length
        )
    return by_title


def measure(
    texts: Texts, models: Mapping[str, Finetuned], cells: Sequence[tuple[Entry, CellProcess]]
) -> None:
    """Write into each entry the metrics of its cell, where its contestant is among the models."""
    if texts.data is None:
        return
    examples = for_accuracy(texts)
    measured = [cell for cell in cells if cell[0].contestant.title in models]
    with console.bar("Accuracy", len(measured)) as bar:
        for entry, process in measured:
            model = models[entry.contestant.title]
            classifier: Any = model.model
            classifier.process = process
            encoded = model.encode(examples)
            bar.advance(1, entry.name)
            if entry.error is not None:
                continue
            try:
                predictions = decide(texts.kind, model.logits(encoded), model.thresholds)
            except CellFailed as error:
                console.warn(f"{entry.name} has no accuracy: {error}.")
                continue
            figures = measure_logits(texts.data, predictions, encoded)
            entry.metrics = {name: value for name, value in figures.items() if name != "score"}
