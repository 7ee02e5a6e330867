"""An export, opened as a model: the runtime behind the interface of the model in torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb import console
from sqzb.data.dataset import DataSet
from sqzb.errors import UserError
from sqzb.export.folder import ExportRecord, read_record
from sqzb.export.heads import CLASSIFIER, INPUTS, TOKENS
from sqzb.export.runtimes import Session, open_session
from sqzb.finetuning.finetuned import Finetuned
from sqzb.finetuning.labels import check_kind, outputs_of
from sqzb.model.checkpoint import read_config
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.heads import ClassificationOutput
from sqzb.model.open import ModelFolder, Opened
from sqzb.tokenizer import load_tokenizer
from sqzb.training.engine import start_accelerator


class Exported(NamedTuple):
    """An export: its record, its tokenizer, and the session of the runtime."""

    folder: Path
    record: ExportRecord
    config: SqueezeBertConfig
    tokenizer: Tokenizer
    session: Session

    def run(self, batch: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs by name for tensors (batch, length); labels are ignored."""
        inputs = {}
        for name in INPUTS:
            inputs[name] = batch[name].cpu().numpy().astype(np.int64)
        return dict(zip(self.record.outputs, self.session(inputs), strict=True))


class ExportedClassifier(nn.Module):
    """A classifier of texts or tokens that a runtime computes."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.config = exported.config
        self._exported = exported

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> ClassificationOutput:
        """Return the logits, as the model in torch does."""
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        return ClassificationOutput(torch.from_numpy(self._exported.run(batch)["logits"]), {})


def open_export(folder: Path, threads: int | None = None) -> Exported:
    """Open an export.

    threads: of a computation; None: the runtime's own choice.

    Raises:
        UserError: a file is damaged, the runtime is not installed, or the processor lacks the
            precision.
    """
    record = read_record(folder)
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    return Exported(folder, record, config, tokenizer, open_session(folder, record, threads))


def open_exported_classifier(exported: Exported) -> Opened[Any]:
    """Return the classifier of an export, as `open_classifier` returns that of a folder.

    Raises:
        UserError: the export has another head.
    """
    if exported.record.head not in (CLASSIFIER, TOKENS):
        raise UserError(
            f"The export {exported.folder} has no classifier: its head is {exported.record.head}. "
            "Export a finetuned model."
        )
    model = ExportedClassifier(exported)
    return Opened[Any](ModelFolder(exported.folder), model, exported.tokenizer)


def open_finetuned_export(folder: Path, data: DataSet) -> Finetuned:
    """Open an export for a data set, as `open_finetuned` opens a run.

    Raises:
        UserError: the export cannot be opened, has no classifier, or has other labels.
    """
    exported = open_export(folder)
    record, opened = exported.record, open_exported_classifier(exported)
    config = opened.model.config
    check_kind(data, config, record.head == TOKENS, folder)
    outputs = outputs_of(data, config.id2label, folder, console.warn)
    accelerator = start_accelerator()
    return Finetuned(data, opened.model, opened.tokenizer, outputs, record.max_length, accelerator)
