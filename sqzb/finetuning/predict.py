"""A classifier's logits over encoded examples, in one process or in all of a run."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.finetuning.encode import Encoded
from sqzb.model.open import Classifier

EVALUATION_BATCH = 32


def predict(model: Classifier, encoded: Encoded, accelerator: Accelerator) -> NDArray[np.float32]:
    """Return logits (examples, labels) in the examples' order; batches are of similar lengths, to pad little.

    This process predicts all of them, whatever the others do.
    """
    return _logits_of(model, encoded, accelerator, list(_by_length(encoded)))


def predict_together(
    model: Classifier, encoded: Encoded, accelerator: Accelerator
) -> NDArray[np.float32]:
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
    model: Classifier,
    encoded: Encoded,
    accelerator: Accelerator,
    batches: Sequence[NDArray[np.int64]],
) -> NDArray[np.float32]:
    """Logits (examples, labels), zero for the examples that are in no batch."""
    model.eval()
    logits = np.zeros((len(encoded.ids), model.config.num_labels), np.float32)
    for rows in batches:
        inputs = {
            name: t.to(accelerator.device)
            for name, t in encoded.batch(rows).items()
            if name != "labels"
        }
        with accelerator.autocast():
            logits[rows] = model(**inputs).logits.float().cpu().numpy()
    return logits


def _by_length(encoded: Encoded) -> Iterator[NDArray[np.int64]]:
    order = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]
