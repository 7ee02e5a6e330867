"""A classifier's logits over encoded examples, in one process or in all of a run."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.data.metrics.entities import OUTSIDE
from sqzb.finetuning.encode import LOST, Encoded
from sqzb.model.open import Classifier

EVALUATION_BATCH = 32
CERTAIN = 20.0  # the logit of the tag of a word that the model does not see; all others are 0


def predict(model: Classifier, encoded: Encoded, accelerator: Accelerator) -> NDArray[np.float32]:
    """Return logits in the order of the examples' labels: (examples, labels), or (words, tags).

    Batches have similar lengths, to need little padding. This process predicts all of them,
    independently of the others.
    """
    logits = _logits_of(model, encoded, accelerator, list(_by_length(encoded)))
    return _with_lost_words(model, encoded, logits)


def predict_together(
    model: Classifier, encoded: Encoded, accelerator: Accelerator
) -> NDArray[np.float32]:
    """Return the logits of `predict` in every process; the processes share the batches.

    All processes of the run have to call this function.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    logits = _logits_of(model, encoded, accelerator, list(_by_length(encoded))[rank::processes])
    if processes > 1:
        # Each row is computed by one process and zero in the others, so the sum is exact.
        own = torch.from_numpy(logits).to(accelerator.device)
        logits = accelerator.reduce(own, "sum").cpu().numpy()
    return _with_lost_words(model, encoded, logits)


@torch.no_grad()
def _logits_of(
    model: Classifier,
    encoded: Encoded,
    accelerator: Accelerator,
    batches: Sequence[NDArray[np.int64]],
) -> NDArray[np.float32]:
    """Return logits, zero for examples that are in no batch and for words that are lost."""
    model.eval()
    rows_in_all = len(encoded.ids) if encoded.words is None else len(encoded.words.places)
    logits = np.zeros((rows_in_all, model.config.num_labels), np.float32)
    for rows in batches:
        inputs = {
            name: t.to(accelerator.device)
            for name, t in encoded.batch(rows).items()
            if name != "labels"
        }
        with accelerator.autocast():
            outputs = model(**inputs).logits.float().cpu().numpy()
        if encoded.words is None:
            logits[rows] = outputs
            continue
        for row, of_tokens in zip(rows, outputs, strict=True):
            words = encoded.words.of(int(row))
            places = encoded.words.places[words]
            logits[words][places != LOST] = of_tokens[places[places != LOST]]
    return logits


def _with_lost_words(
    model: Classifier, encoded: Encoded, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the logits with a prediction for each word that the model does not see.

    The prediction is the tag O, or else the tag that is predicted most often.
    """
    if encoded.words is None or not encoded.words.lost:
        return logits
    seen = encoded.words.places != LOST
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    commonest = np.bincount(logits[seen].argmax(1), minlength=len(names)).argmax()
    tag = names.index(OUTSIDE) if OUTSIDE in names else commonest
    filled = logits.copy()
    filled[~seen] = 0
    filled[~seen, tag] = CERTAIN
    return filled


def _by_length(encoded: Encoded) -> Iterator[NDArray[np.int64]]:
    order = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]
