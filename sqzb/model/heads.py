"""The encoder with its heads: masked tokens, sentence order, classification and regression.

A model returns the sum of its losses, not their mean. A trainer adds the sums of micro-batches and
processes and divides once by the number of labels, which gives exactly the mean over one large
batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.model.checkpoint import SavedModel
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.costs import costs, total
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.fused_loss import aligned_linear, linear_cross_entropy
from sqzb.model.layers import Dropout, activation, initialize

# The label of a prediction that does not count, as in torch's cross_entropy.
IGNORED = -100


class LossSum(NamedTuple):
    """The summed loss of a batch and its hits, over the predictions whose label is not IGNORED.

    loss: sum of the losses, a scalar.
    correct: number of hits, a scalar.
    """

    loss: Tensor
    correct: Tensor


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossSum:
    """Sum the cross-entropy in nats and the hits of `logits` (n, classes) against `labels` (n).

    The loss is computed in fp32.

    weights: (classes), factor of the loss of each class's labels; None: 1.
    """
    x = _in_fp32(logits)
    loss = F.cross_entropy(x, labels, weights, ignore_index=IGNORED, reduction="sum")
    return LossSum(loss, (logits.argmax(-1) == labels).sum())


def regression_loss(logits: Tensor, labels: Tensor) -> LossSum:
    """Sum the squared error of `logits` (n, 1), in fp32, against `labels` (n).

    No prediction counts as a hit.
    """
    loss = _squared_error(logits, labels, labels)
    return LossSum(loss, torch.zeros((), dtype=torch.long, device=loss.device))


def several_labels_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossSum:
    """Sum the binary cross-entropy in nats and the hits of `logits` against `labels` of 0 and 1.

    Both are (n, labels).

    weights: (labels), factor of the loss of an example that has the label; None: 1.
    """
    counted = labels != IGNORED
    loss = _binary_cross_entropy(logits, labels.clamp(min=0), labels, weights)
    return LossSum(loss, (((logits > 0) == (labels > 0)) & counted).sum())


def soft_classification_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> LossSum:
    """Sum the loss of distillation (Hinton et al. 2015); hits are those against `labels` (n) alone.

    The loss is (1 - alpha) x `classification_loss` + alpha x T^2 x the cross-entropy of
    softmax(logits / T) to softmax(teacher_logits / T), both (n, classes), over the labelled rows.
    The soft gradient shrinks with 1 / T^2, so T^2 keeps it in proportion to the hard one.

    weights: (classes), factor of an example's loss by its label, in both parts.
    """
    hard = classification_loss(logits, labels, weights)
    targets = (_in_fp32(teacher_logits) / temperature).softmax(-1)
    soft = F.cross_entropy(_in_fp32(logits) / temperature, targets, reduction="none") * (
        labels != IGNORED
    )
    if weights is not None:
        soft = soft * weights[labels.clamp(min=0)]
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * temperature**2 * soft.sum())


def soft_regression_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor, alpha: float
) -> LossSum:
    """Sum the loss of distillation of a regression.

    The loss is (1 - alpha) x the squared error to `labels` (n) + alpha x that to the teacher's
    scores (n, 1).
    """
    hard = regression_loss(logits, labels)
    soft = _squared_error(logits, teacher_logits.squeeze(1), labels)
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * soft)


def soft_several_labels_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> LossSum:
    """Sum the loss of distillation of several labels an example.

    The soft part is the binary cross-entropy to sigmoid(teacher_logits / T).
    """
    hard = several_labels_loss(logits, labels, weights)
    targets = (_in_fp32(teacher_logits) / temperature).sigmoid()
    soft = _binary_cross_entropy(_in_fp32(logits) / temperature, targets, labels, weights)
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * temperature**2 * soft)


def task_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossSum:
    """Sum the loss of a classifier's logits; the shapes tell which loss.

    (n, labels) against (n, labels): several labels an example. (n, 1) against (n): a regression.
    (n, classes) against (n), (n, length, tags) against (n, length): classification.
    """
    if logits.ndim == labels.ndim:
        return several_labels_loss(logits, labels, weights)
    if logits.ndim == 2 and logits.shape[1] == 1:
        return regression_loss(logits, labels)
    return classification_loss(logits.flatten(0, -2), labels.flatten(), weights)


def soft_task_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> LossSum:
    """Sum the loss of distillation; the shapes tell which, as in `task_loss`.

    teacher_logits: in the shape of `logits`.
    """
    if logits.ndim == labels.ndim:
        return soft_several_labels_loss(logits, labels, teacher_logits, temperature, alpha, weights)
    if logits.ndim == 2 and logits.shape[1] == 1:
        return soft_regression_loss(logits, labels, teacher_logits, alpha)
    return soft_classification_loss(
        logits.flatten(0, -2),
        labels.flatten(),
        teacher_logits.flatten(0, -2),
        temperature,
        alpha,
        weights,
    )


def _binary_cross_entropy(
    logits: Tensor, targets: Tensor, labels: Tensor, weights: Tensor | None
) -> Tensor:
    """Sum the cross-entropy of `logits` to `targets`, both (n, labels), over labelled entries."""
    each = F.binary_cross_entropy_with_logits(
        _in_fp32(logits), _in_fp32(targets), reduction="none", pos_weight=weights
    )
    return (each * (labels != IGNORED)).sum()


def _squared_error(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Sum the squared error of `logits` (n, 1) to `targets` (n) over labelled rows."""
    return ((_in_fp32(logits).squeeze(1) - _in_fp32(targets)) * (labels != IGNORED)).square().sum()


def _in_fp32(x: Tensor) -> Tensor:
    """Return `x` in fp32, or unchanged if it is fp64."""
    return x if x.dtype == torch.float64 else x.float()


def at_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Select from `x` (batch, length, width) the `positions` (batch, n): (batch, n, width)."""
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))


class MaskedLMOutput(NamedTuple):
    """The logits of a masked language model, (batch, length, vocabulary)."""

    logits: Tensor  # (batch, length, vocabulary)


class PreTrainingOutput(NamedTuple):
    """The output in pretraining.

    mlm_logits: (batch, predictions or length, vocabulary); None if the MLM labels are given.
    sop_logits: (batch, 2); class 1 is "the segments are swapped", as in ALBERT.
    loss_sums: the summed loss by name, "mlm" and "sop", for each kind of label that is given.
    """

    mlm_logits: Tensor | None
    sop_logits: Tensor
    loss_sums: dict[str, LossSum]


class ClassificationOutput(NamedTuple):
    """The output of a classifier.

    logits: (batch, labels), one column for a regression; or (batch, length, tags).
    loss_sums: the summed loss as "task", if labels are given.
    """

    logits: Tensor
    loss_sums: dict[str, LossSum]


def classified(logits: Tensor, labels: Tensor | None) -> ClassificationOutput:
    """Return the logits, and with `labels` their `task_loss`."""
    if labels is None:
        return ClassificationOutput(logits, {})
    return ClassificationOutput(logits, {"task": task_loss(logits, labels)})


class _Transform(nn.Module):
    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        transformed: Tensor = self.LayerNorm(self.activation(self.dense(x)))
        return transformed


class _Predictions(nn.Module):
    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.transform = _Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class MLMHead(nn.Module):
    """The head that predicts tokens with the tied embedding matrix as its output weight."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.predictions = _Predictions(config)
        initialize(self, config)

    def forward(self, x: Tensor, word_embeddings: nn.Embedding) -> Tensor:
        """Map (..., width) to logits (..., vocabulary)."""
        x, weight = self.predictions.transform(x), word_embeddings.weight
        return (aligned_linear if x.is_cuda else F.linear)(x, weight, self.predictions.bias)

    def loss(self, x: Tensor, word_embeddings: nn.Embedding, labels: Tensor) -> LossSum:
        """Return the loss of (rows, width) against `labels` (rows), as `linear_cross_entropy`."""
        x, weight = self.predictions.transform(x), word_embeddings.weight
        return LossSum(*linear_cross_entropy(x, weight, self.predictions.bias, labels, IGNORED))


class SqueezeBertForMaskedLM(SavedModel):
    """The encoder with the MLM head."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.cls = MLMHead(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Return the logits of every position; SqueezeBertForPreTraining has the loss."""
        x = self.transformer(input_ids, attention_mask, token_type_ids).last_hidden_state
        return MaskedLMOutput(self.cls(x, self.transformer.embeddings.word_embeddings))


class SqueezeBertForPreTraining(SavedModel):
    """The encoder with the MLM head and, on the pooler, the sentence-order head (SOP).

    fused_loss: compute the MLM loss part by part, without all logits in memory.
    """

    fresh_if_absent = ("sop.",)
    fused_loss = False

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.cls = MLMHead(config)
        self.sop = nn.Linear(config.hidden_size, 2)
        initialize(self.sop, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mlm_positions: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        sop_labels: Tensor | None = None,
    ) -> PreTrainingOutput:
        """Return logits, and a summed loss for each kind of label that is given.

        mlm_positions: (batch, predictions), the positions of the MLM head; None: all. If input_ids
        are rows without padding: (predictions), the rows of the MLM head.
        mlm_labels: the tokens at these positions, -100 for an empty slot. If they are given, the
        MLM logits are not returned, because a compiled forward would write them to memory for
        nothing.
        sop_labels: (batch), 1 swapped, 0 in order, -100 for a single segment.
        """
        x, pooled = self.transformer(input_ids, attention_mask, token_type_ids)
        if mlm_positions is not None and mlm_positions.ndim == 1:
            x = x.index_select(0, mlm_positions)
        elif mlm_positions is not None:
            x = at_positions(x, mlm_positions)
        words = self.transformer.embeddings.word_embeddings
        mlm_logits, loss_sums = None, {}
        if mlm_labels is None:
            mlm_logits = self.cls(x, words)
        elif self.fused_loss:
            loss_sums["mlm"] = self.cls.loss(x.flatten(0, -2), words, mlm_labels.flatten())
        else:
            logits = self.cls(x, words).flatten(0, -2)
            loss_sums["mlm"] = classification_loss(logits, mlm_labels.flatten())
        sop_logits = self.sop(pooled)
        if sop_labels is not None:
            loss_sums["sop"] = classification_loss(sop_logits, sop_labels)
        return PreTrainingOutput(mlm_logits, sop_logits, loss_sums)


class SqueezeBertForSequenceClassification(SavedModel):
    """The encoder with a classifier on the pooler; a single label makes it a regression."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialize(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ClassificationOutput:
        """Return logits, and with `labels` a summed loss, as `classified` does.

        labels: (batch), or (batch, labels) of 0 and 1.
        """
        pooled = self.transformer(input_ids, attention_mask, token_type_ids).pooler_output
        return classified(self.classifier(self.dropout(pooled)), labels)

    def forward_flops(self, rows: int, length: int) -> int:
        """Return the floating-point operations of a forward on (rows, length) positions."""
        return total(costs(self.config, rows, length, labels=self.config.num_labels)).flops


class SqueezeBertForTokenClassification(SavedModel):
    """The encoder with a classifier on every position.

    The format has a pooler; here it is not trained.
    """

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        # Data parallelism would wait for the gradient of the unused pooler.
        self.transformer.pooler.requires_grad_(False)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialize(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ClassificationOutput:
        """Return logits (batch, length, tags), and with `labels` (batch, length) a summed loss."""
        x = self.transformer(input_ids, attention_mask, token_type_ids).last_hidden_state
        return classified(self.classifier(self.dropout(x)), labels)

    def forward_flops(self, rows: int, length: int) -> int:
        """Return the floating-point operations of a forward on (rows, length) positions."""
        return total(costs(self.config, rows, length, tags=self.config.num_labels)).flops
