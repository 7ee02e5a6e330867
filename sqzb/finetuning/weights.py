"""Weights of classes in the loss, so that a rare class counts as much as a common one."""

import numpy as np
import torch
from torch import Tensor, nn

from sqzb.data.dataset import DataSet, Labels, Number
from sqzb.errors import UserError
from sqzb.finetuning.encode import Encoded
from sqzb.model.heads import IGNORED, ClassificationOutput, task_loss
from sqzb.model.open import Classifier


class Weighted(nn.Module):
    """A classifier with weights in its loss, for training; the classifier alone is saved."""

    weights: Tensor

    def __init__(self, model: Classifier, weights: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weights", weights)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor
    ) -> ClassificationOutput:
        """Return the classifier's output, with the weighted loss."""
        logits = self.model(input_ids, attention_mask, token_type_ids).logits
        return ClassificationOutput(logits, {"task": task_loss(logits, labels, self.weights)})


def check_weights(class_weights: str | None, data: DataSet) -> None:
    """Check that the labels have classes to weight.

    Raises:
        UserError: the labels are numbers.
    """
    if class_weights is not None and isinstance(data.kind, Number):
        raise UserError(
            f"class_weights={class_weights}: the labels of {data.name} are numbers, which have no "
            "classes. Leave it out, or give data.kind=classes."
        )


def balanced_weights(data: DataSet, train: Encoded) -> Tensor:
    """Return the weight of each class, as scikit-learn's "balanced": n / (classes x its count).

    Their mean over the training labels is 1. A class without a training label does not count, and
    its weight is 1. Of several labels, the weight is that of an example that has the label: the
    number of examples without the label for each example with it.
    """
    if isinstance(data.kind, Labels):
        labelled = train.labels[train.labels[:, 0] != IGNORED]
        positive = labelled.sum(0)
        negative = len(labelled) - positive
        several = np.where((positive > 0) & (negative > 0), negative / np.maximum(1, positive), 1.0)
        return torch.from_numpy(several.astype(np.float32))
    labels = train.labels[train.labels != IGNORED]
    counts = np.bincount(labels, minlength=data.kind.outputs)
    occurring = max(1, int(np.sum(counts > 0)))
    weights = np.where(counts > 0, len(labels) / (occurring * np.maximum(1, counts)), 1.0)
    return torch.from_numpy(weights.astype(np.float32))
