"""The encoder with its heads: masked language model, sentence order, classification and regression.

A loss leaves a model as a `Tally`, a sum and not a mean, so that a trainer can add micro-batches and processes up,
and divide once by the number of labels, to exactly the mean over one large batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzb.model.checkpoint import SavedModel
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.costs import costs, total
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.layers import Dropout, activation, initialize

# The label of a prediction that does not count, as in torch's cross_entropy.
IGNORED = -100
# A GPU's fast products want rows of logits that begin at whole multiples of 16 bytes; 64 numbers fill its tiles too.
ALIGNED = 64


class Tally(NamedTuple):
    """What a batch adds to a step: scalars over the predictions whose label is not `IGNORED`.

    loss: the sum of their losses; correct: how many hit.
    """

    loss: Tensor
    correct: Tensor


def classification_tally(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tally:
    """Cross-entropy in nats and hits of `logits` (n, classes), taken in fp32, against `labels` (n).

    weights (classes): of a label of each class in the loss; None: 1.
    """
    x = _in_fp32(logits)
    loss = F.cross_entropy(x, labels, weights, ignore_index=IGNORED, reduction="sum")
    return Tally(loss, (logits.argmax(-1) == labels).sum())


def regression_tally(logits: Tensor, labels: Tensor) -> Tally:
    """The squared error of `logits` (n, 1), taken in fp32, against `labels` (n); no prediction counts as correct."""
    loss = _squared_error(logits, labels, labels)
    return Tally(loss, torch.zeros((), dtype=torch.long, device=loss.device))


def several_labels_tally(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tally:
    """Binary cross-entropy in nats and hits of each of `logits` (n, labels) against `labels` of 0 and 1.

    weights (labels): of an example that has the label, against one that has not; None: 1.
    """
    counted = labels != IGNORED
    loss = _binary_cross_entropy(logits, labels.clamp(min=0), labels, weights)
    return Tally(loss, (((logits > 0) == (labels > 0)) & counted).sum())


def soft_classification_tally(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> Tally:
    """What distillation minimises (Hinton et al. 2015), and the hits against `labels` (n) alone.

    (1 - alpha) x `classification_tally` + alpha x T^2 x the cross-entropy of softmax(logits / T) to
    softmax(teacher_logits / T), both (n, classes), over the labelled rows. T^2 keeps the size of the soft gradient,
    which goes with 1 / T^2, that of the hard one. weights (classes): of an example by its label, in both parts.
    """
    hard = classification_tally(logits, labels, weights)
    targets = (_in_fp32(teacher_logits) / temperature).softmax(-1)
    soft = F.cross_entropy(_in_fp32(logits) / temperature, targets, reduction="none") * (
        labels != IGNORED
    )
    if weights is not None:
        soft = soft * weights[labels.clamp(min=0)]
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * temperature**2 * soft.sum())


def soft_regression_tally(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor, alpha: float
) -> Tally:
    """The same of a regression: (1 - alpha) x the squared error to `labels` (n) + alpha x that to the teacher's
    scores (n, 1)."""
    hard = regression_tally(logits, labels)
    soft = _squared_error(logits, teacher_logits.squeeze(1), labels)
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * soft)


def soft_several_labels_tally(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> Tally:
    """The same of several labels: the soft part is the binary cross-entropy to sigmoid(teacher_logits / T)."""
    hard = several_labels_tally(logits, labels, weights)
    targets = (_in_fp32(teacher_logits) / temperature).sigmoid()
    soft = _binary_cross_entropy(_in_fp32(logits) / temperature, targets, labels, weights)
    return hard._replace(loss=(1 - alpha) * hard.loss + alpha * temperature**2 * soft)


def task_tally(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tally:
    """The tally of a classifier's logits, of the kind that the shapes say.

    (n, labels) against (n, labels): several labels an example. (n, 1) against (n): a regression.
    (n, classes) against (n), (n, length, tags) against (n, length): classification.
    """
    if logits.ndim == labels.ndim:
        return several_labels_tally(logits, labels, weights)
    if logits.ndim == 2 and logits.shape[1] == 1:
        return regression_tally(logits, labels)
    return classification_tally(logits.flatten(0, -2), labels.flatten(), weights)


def soft_task_tally(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    alpha: float,
    weights: Tensor | None = None,
) -> Tally:
    """The tally of distillation, of the kind that the shapes say as for `task_tally`.

    teacher_logits: in the shape of `logits`.
    """
    if logits.ndim == labels.ndim:
        return soft_several_labels_tally(
            logits, labels, teacher_logits, temperature, alpha, weights
        )
    if logits.ndim == 2 and logits.shape[1] == 1:
        return soft_regression_tally(logits, labels, teacher_logits, alpha)
    return soft_classification_tally(
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
    """Of `logits` to `targets` in nats, both (n, labels), summed over the entries that have a label."""
    each = F.binary_cross_entropy_with_logits(
        _in_fp32(logits), _in_fp32(targets), reduction="none", pos_weight=weights
    )
    return (each * (labels != IGNORED)).sum()


def _squared_error(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Of `logits` (n, 1) to `targets` (n), summed over the rows that have a label."""
    return ((_in_fp32(logits).squeeze(1) - _in_fp32(targets)) * (labels != IGNORED)).square().sum()


def _in_fp32(x: Tensor) -> Tensor:
    """`x` in fp32, or in fp64 where it is."""
    return x if x.dtype == torch.float64 else x.float()


def at_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Of `x` (batch, length, width), what is at `positions` (batch, n): (batch, n, width)."""
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))


class MaskedLMOutput(NamedTuple):
    logits: Tensor  # (batch, length, vocabulary)


class PreTrainingOutput(NamedTuple):
    mlm_logits: (
        Tensor | None
    )  # (batch, predictions or length, vocabulary); None where their labels are given
    sop_logits: Tensor  # (batch, 2); class 1 is "the segments are swapped", as in ALBERT
    tallies: dict[str, Tally]


class ClassificationOutput(NamedTuple):
    logits: Tensor  # (batch, labels), one column for regression; or (batch, length, tags)
    tallies: dict[str, Tally]


def classified(logits: Tensor, labels: Tensor | None) -> ClassificationOutput:
    """With `labels` the logits and their `task_tally`, else the logits alone."""
    if labels is None:
        return ClassificationOutput(logits, {})
    return ClassificationOutput(logits, {"task": task_tally(logits, labels)})


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


def aligned_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.linear, with as many outputs in its product as a GPU is fast at."""
    missing = -len(bias) % ALIGNED
    if not missing:
        return F.linear(x, weight, bias)
    return F.linear(x, F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing)))[
        ..., : len(bias)
    ]


class MLMHead(nn.Module):
    """Predicts tokens with the embedding matrix as output weight: tied, and so held once in memory and on disk."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.predictions = _Predictions(config)
        initialize(self, config)

    def forward(self, x: Tensor, word_embeddings: nn.Embedding) -> Tensor:
        """Map (..., width) to logits (..., vocabulary)."""
        x, weight, bias = (
            self.predictions.transform(x),
            word_embeddings.weight,
            self.predictions.bias,
        )
        return (aligned_linear if x.is_cuda else F.linear)(x, weight, bias)


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
        """Return the logits of every position. SqueezeBertForPreTraining has the loss."""
        x = self.transformer(input_ids, attention_mask, token_type_ids).last_hidden_state
        return MaskedLMOutput(self.cls(x, self.transformer.embeddings.word_embeddings))


class SqueezeBertForPreTraining(SavedModel):
    """The encoder with the MLM head and, on the pooler, the head for sentence order prediction (SOP)."""

    fresh_if_absent = ("sop.",)

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
        """Logits, and a tally for each kind of label that is given. The MLM's comes in place of its logits, which a
        compiled forward would write out for nobody.

        mlm_positions (batch, predictions): where the MLM head is to run, everywhere if left out; mlm_labels: the
        tokens there, -100 for an empty slot; sop_labels (batch): 1 swapped, 0 in order, -100 for one segment alone.
        """
        x, pooled = self.transformer(input_ids, attention_mask, token_type_ids)
        if mlm_positions is not None:
            x = at_positions(x, mlm_positions)
        mlm_logits = self.cls(x, self.transformer.embeddings.word_embeddings)
        sop_logits = self.sop(pooled)
        tallies = {}
        if mlm_labels is not None:
            tallies["mlm"] = classification_tally(mlm_logits.flatten(0, 1), mlm_labels.flatten())
        if sop_labels is not None:
            tallies["sop"] = classification_tally(sop_logits, sop_labels)
        return PreTrainingOutput(mlm_logits if mlm_labels is None else None, sop_logits, tallies)


class SqueezeBertForSequenceClassification(SavedModel):
    """The encoder with a classifier on the pooler; one label makes it a regression."""

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
        """Logits, and with `labels` a tally, as `classified` makes it: (batch), or (batch, labels) of 0 and 1."""
        pooled = self.transformer(input_ids, attention_mask, token_type_ids).pooler_output
        return classified(self.classifier(self.dropout(pooled)), labels)

    def forward_flops(self, rows: int, length: int) -> int:
        """Floating-point operations of a forward on (rows, length) places."""
        return total(costs(self.config, rows, length, labels=self.config.num_labels)).flops


class SqueezeBertForTokenClassification(SavedModel):
    """The encoder with a classifier on every position. The pooler is kept for the format, and is not trained."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.transformer = SqueezeBertModel(config)
        self.transformer.pooler.requires_grad_(False)  # several processes wait for all gradients
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
        """Logits (batch, length, tags), and with `labels` (batch, length) a tally, as `classified` makes it."""
        x = self.transformer(input_ids, attention_mask, token_type_ids).last_hidden_state
        return classified(self.classifier(self.dropout(x)), labels)

    def forward_flops(self, rows: int, length: int) -> int:
        """Floating-point operations of a forward on (rows, length) places."""
        return total(costs(self.config, rows, length, tags=self.config.num_labels)).flops
