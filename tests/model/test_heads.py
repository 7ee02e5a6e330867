"""The heads: a loss is a sum, and running a head on some positions changes no number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from examples import scaled
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from sqzb.model.fused_loss import aligned_linear
from sqzb.model.heads import (
    IGNORED,
    LossSum,
    classification_loss,
    regression_loss,
    several_labels_loss,
    soft_classification_loss,
    soft_regression_loss,
    soft_several_labels_loss,
    soft_task_loss,
    task_loss,
)

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
Batch = Callable[..., dict[str, Tensor]]

ROWS, LENGTH, SLOTS = 4, 20, 5
seeds = st.integers(0, 999)
# Where the MLM head is to run in each row (a place may come twice), and which slots are filled.
slots = st.tuples(
    *(
        st.lists(item, min_size=ROWS * SLOTS, max_size=ROWS * SLOTS)
        for item in (st.integers(0, LENGTH - 1), st.booleans())
    )
)


def one_by_one(logits: Tensor, labels: Tensor) -> LossSum:
    """The summed loss of (n, classes) against (n), from its definition."""
    asked = [
        (row.double().log_softmax(0), int(label))
        for row, label in zip(logits, labels, strict=True)
        if label >= 0
    ]
    loss = -sum((row[label] for row, label in asked), start=torch.zeros((), dtype=torch.double))
    hits = sum(int(row.argmax()) == label for row, label in asked)
    return LossSum(loss.float(), torch.tensor(hits))


def assert_same(got: LossSum, due: LossSum) -> None:
    assert_close(got.loss, due.loss, rtol=1e-5, atol=1e-5)
    assert int(got.correct) == int(due.correct)


@pytest.fixture(scope="module")
def pretraining(tiny: Config, scramble: Scramble) -> Any:
    return scramble(SqueezeBertForPreTraining(tiny())).eval()


@settings(max_examples=scaled(25))
@given(seeds, st.integers(0, 12), st.integers(2, 5))
def test_a_tally_is_the_sum_over_what_is_asked(seed: int, n: int, classes: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=random)
    labels = torch.randint(-1, classes, (n,), generator=random)
    labels[labels < 0] = IGNORED
    assert_same(classification_loss(logits, labels), one_by_one(logits, labels))


def test_a_loss_is_summed_in_fp32() -> None:
    logits, labels = torch.randn(4000, 3).bfloat16(), torch.zeros(4000, dtype=torch.long)
    loss_sum = classification_loss(logits, labels)
    assert loss_sum.loss.dtype == torch.float32
    assert_close(loss_sum.loss, F.cross_entropy(logits.double(), labels, reduction="sum").float())


@settings(max_examples=scaled(12))
@given(seed=seeds, slots=slots)
def test_mlm_at_positions_is_mlm_everywhere_looked_up_there(
    seed: int,
    slots: tuple[list[int], list[bool]],
    pretraining: SqueezeBertForPreTraining,
    tiny: Config,
    batch: Batch,
) -> None:
    inputs = batch(tiny(), ROWS, LENGTH, seed)
    positions, filled = (torch.tensor(column).view(ROWS, SLOTS) for column in slots)
    labels = inputs["input_ids"].gather(1, positions).where(filled, IGNORED)
    everywhere = pretraining(**inputs)
    there = pretraining(**inputs, mlm_positions=positions, mlm_labels=labels)
    expected = everywhere.mlm_logits[torch.arange(ROWS)[:, None], positions]
    assert there.mlm_logits is None
    assert_close(
        pretraining(**inputs, mlm_positions=positions).mlm_logits, expected, rtol=0, atol=1e-5
    )
    assert_close(there.sop_logits, everywhere.sop_logits)
    assert everywhere.loss_sums == {}
    assert there.loss_sums.keys() == {"mlm"}
    assert_same(there.loss_sums["mlm"], one_by_one(expected.flatten(0, 1), labels.flatten()))


def test_the_mlm_head_is_that_of_masked_lm(
    pretraining: SqueezeBertForPreTraining, tiny: Config, batch: Batch
) -> None:
    model = SqueezeBertForMaskedLM(tiny()).eval()
    model.load_state_dict(
        {n: t for n, t in pretraining.state_dict().items() if not n.startswith("sop.")}
    )
    assert_close(pretraining(**batch(tiny())).mlm_logits, model(**batch(tiny())).logits)


@pytest.mark.parametrize("outputs", [1, 60, 64, 65])
def test_outputs_that_a_gpu_pads_are_those_of_a_plain_product(outputs: int) -> None:
    """And so are their gradients: what is padded is cut off again."""
    draw = torch.Generator().manual_seed(outputs)
    shapes = ((3, 5, 8), (outputs, 8), (outputs,))
    inputs = [torch.randn(*shape, generator=draw, dtype=torch.double) for shape in shapes]
    weights = torch.randn(3, 5, outputs, generator=draw, dtype=torch.double)
    found = []
    for product in (aligned_linear, F.linear):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = product(*leaves)
        (out * weights).sum().backward()
        found.append((out, *(leaf.grad for leaf in leaves)))
    assert_close(found[0], found[1])


def test_sentence_order_is_read_from_the_first_token_and_counts_pairs_alone(
    pretraining: SqueezeBertForPreTraining, tiny: Config, batch: Batch
) -> None:
    inputs, labels = batch(tiny()), torch.tensor([1, IGNORED, 0, 1])
    out = pretraining(**inputs, sop_labels=labels)
    pooled = pretraining.transformer(**inputs).pooler_output
    assert_close(out.sop_logits, F.linear(pooled, pretraining.sop.weight, pretraining.sop.bias))
    assert out.loss_sums.keys() == {"sop"}
    assert_same(out.loss_sums["sop"], one_by_one(out.sop_logits, labels))


@pytest.mark.parametrize("labels", [{0: "no", 1: "yes", 2: "maybe"}, {0: "score"}])
def test_a_classifier_tallies_what_is_asked(
    labels: dict[int, str], tiny: Config, scramble: Scramble, batch: Batch
) -> None:
    model = scramble(SqueezeBertForSequenceClassification(tiny(id2label=labels))).eval()
    inputs, due = batch(tiny()), torch.tensor([1, IGNORED, 2, 0])
    logits = model(**inputs).logits
    assert logits.shape == (4, len(labels))
    out = model(**inputs, labels=due)
    assert_close(out.logits, logits)
    if len(labels) > 1:
        assert_same(out.loss_sums["task"], one_by_one(logits, due))
    else:
        squares = sum((logits[row, 0] - due[row]) ** 2 for row in (0, 2, 3))
        assert_same(out.loss_sums["task"], LossSum(squares, torch.tensor(0)))


def test_a_classifier_sees_the_pooled_token_through_dropout(
    tiny: Config, scramble: Scramble, batch: Batch
) -> None:
    model = scramble(SqueezeBertForSequenceClassification(tiny())).train()
    assert model.dropout.p == tiny().hidden_dropout_prob
    model.dropout.p = 1.0
    assert_close(model(**batch(tiny())).logits, model.classifier.bias.expand(4, 2))


def test_where_nothing_is_asked_the_loss_is_zero_and_has_a_gradient_of_zero(
    pretraining: SqueezeBertForPreTraining, tiny: Config, scramble: Scramble, batch: Batch
) -> None:
    inputs, none = batch(tiny()), torch.full((4, 20), IGNORED)
    for model, labels in [
        (pretraining, {"mlm_labels": none, "sop_labels": none[:, 0]}),
        (scramble(SqueezeBertForSequenceClassification(tiny())), {"labels": none[:, 0]}),
        (
            scramble(SqueezeBertForSequenceClassification(tiny(id2label={0: "score"}))),
            {"labels": none[:, 0]},
        ),
    ]:
        loss_sums = model(**inputs, **labels).loss_sums.values()
        for loss_sum in loss_sums:
            assert [figure.item() for figure in loss_sum] == [0, 0]
        sum(loss_sum.loss for loss_sum in loss_sums).backward()
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        model.zero_grad()


def test_micro_batches_add_up_to_the_whole_batch(
    pretraining: SqueezeBertForPreTraining, tiny: Config, batch: Batch
) -> None:
    inputs = batch(tiny(), rows=6)
    labels = inputs["input_ids"].where(inputs["input_ids"] % 2 == 0, IGNORED)
    whole = pretraining(**inputs, mlm_labels=labels).loss_sums["mlm"]
    parts = [
        pretraining(
            **{name: tensor[rows] for name, tensor in inputs.items()}, mlm_labels=labels[rows]
        ).loss_sums["mlm"]
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert_same(LossSum(*(sum(column) for column in zip(*parts, strict=True))), whole)


def test_bf16_losses_are_close_to_fp32_and_kept_in_fp32(
    pretraining: SqueezeBertForPreTraining, tiny: Config, batch: Batch
) -> None:
    inputs = batch(tiny())
    labels = {"mlm_labels": inputs["input_ids"], "sop_labels": torch.tensor([0, 1, 1, 0])}
    full = pretraining(**inputs, **labels).loss_sums
    with torch.autocast("cpu", torch.bfloat16):
        half = pretraining(**inputs, **labels).loss_sums
    for name, loss_sum in half.items():
        assert loss_sum.loss.dtype == torch.float32
        assert_close(loss_sum.loss, full[name].loss, rtol=0.02, atol=0.02)


# Distillation

temperatures, alphas = st.floats(0.2, 20), st.floats(0, 1)


def drawn(seed: int, n: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels of which some do not count, and a teacher's logits; in fp64."""
    random = torch.Generator().manual_seed(seed)
    logits, teacher = (
        3 * torch.randn(n, classes, generator=random, dtype=torch.double) for _ in range(2)
    )
    labels = torch.randint(-1, classes, (n,), generator=random)
    return logits, labels.where(labels >= 0, IGNORED), teacher


@given(seeds, st.integers(0, 12), st.integers(2, 5), temperatures, alphas)
def test_the_soft_loss_is_as_defined(
    seed: int, n: int, classes: int, temperature: float, alpha: float
) -> None:
    """By scipy's relative entropy, which lacks the teacher's own entropy; row by row."""
    logits, labels, teacher = drawn(seed, n, classes)
    due = 0.0
    for row, label, taught in zip(logits, labels, teacher, strict=True):
        if label != IGNORED:
            p, q = (softmax(values.numpy() / temperature) for values in (taught, row))
            due += (1 - alpha) * -np.log(softmax(row.numpy())[label])
            due += alpha * temperature**2 * (entropy(p, q) + entropy(p))
    got = soft_classification_loss(logits.float(), labels, teacher.float(), temperature, alpha)
    assert got.loss.dtype == torch.float32
    np.testing.assert_allclose(float(got.loss), due, rtol=1e-4, atol=1e-4)
    assert got[1:] == classification_loss(logits, labels)[1:]


@settings(max_examples=scaled(10))
@given(seeds, st.integers(2, 5), temperatures, alphas)
def test_the_soft_gradients_are_the_numerical_ones(
    seed: int, classes: int, temperature: float, alpha: float
) -> None:
    logits, labels, teacher = drawn(seed, 4, classes)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: soft_classification_loss(x, labels, teacher, temperature, alpha).loss, logits
    )
    scores = labels.double()
    assert torch.autograd.gradcheck(
        lambda x: soft_regression_loss(x, scores, teacher[:, :1], alpha).loss, logits[:, :1]
    )


@given(seeds, st.integers(0, 12), alphas)
def test_a_soft_regression_is_as_defined(seed: int, n: int, alpha: float) -> None:
    logits, labels, teacher = drawn(seed, n, 5)
    got = soft_regression_loss(logits[:, :1].float(), labels.float(), teacher[:, :1].float(), alpha)
    asked = [row for row in range(n) if labels[row] != IGNORED]
    due = sum(
        (1 - alpha) * float(logits[row, 0] - labels[row]) ** 2
        + alpha * float(logits[row, 0] - teacher[row, 0]) ** 2
        for row in asked
    )
    np.testing.assert_allclose(float(got.loss), due, rtol=1e-4, atol=1e-4)
    assert int(got.correct) == 0


@given(seeds, st.integers(1, 12), st.integers(2, 5), temperatures)
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(
    seed: int, n: int, classes: int, temperature: float
) -> None:
    """And from a shifted one neither: softmax knows no common addend."""
    logits, labels, _ = drawn(seed, n, classes)
    logits.requires_grad_()
    for teacher in (logits.detach(), logits.detach() + 1.5):
        loss = soft_classification_loss(logits, labels, teacher, temperature, alpha=1.0).loss
        (gradient,) = torch.autograd.grad(loss, logits)
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 12), st.integers(2, 5))
def test_without_a_share_the_teacher_changes_no_bit(seed: int, n: int, classes: int) -> None:
    logits, labels, teacher = (
        values.float() if values.is_floating_point() else values
        for values in drawn(seed, n, classes)
    )
    logits.requires_grad_()
    column, numbers = logits[:, :1], labels.float()
    for got, due in (
        (
            soft_classification_loss(logits, labels, teacher, 1.0, 0.0),
            classification_loss(logits, labels),
        ),
        (
            soft_regression_loss(column, numbers, teacher[:, :1], 0.0),
            regression_loss(column, numbers),
        ),
    ):
        assert got == due
        gradients = [
            torch.autograd.grad(of_one.loss, logits, retain_graph=True)[0] for of_one in (got, due)
        ]
        assert torch.equal(*gradients)


# Several labels, tags, and weights of classes.


def drawn_several(seed: int, n: int, labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels of 0 and 1 of which the first row has none, and a teacher's logits; in
    fp64.
    """
    random = torch.Generator().manual_seed(seed)
    logits, teacher = (
        3 * torch.randn(n, labels, generator=random, dtype=torch.double) for _ in range(2)
    )
    truths = torch.randint(0, 2, (n, labels), generator=random).double()
    truths[:1] = IGNORED
    return logits, truths, teacher


@given(seeds, st.integers(1, 8), st.integers(1, 4), temperatures, alphas)
def test_the_loss_of_several_labels_is_as_defined(
    seed: int, n: int, k: int, temperature: float, alpha: float
) -> None:
    logits, labels, teacher = drawn_several(seed, n, k)
    weights = torch.linspace(0.5, 2.0, k, dtype=torch.double)
    hard = soft = 0.0
    for row, column in np.ndindex(n, k):
        if labels[row, column] == IGNORED:
            continue
        x, y = logits[row, column], labels[row, column]
        target = torch.sigmoid(teacher[row, column] / temperature)
        for value, aim, is_soft in ((x, y, False), (x / temperature, target, True)):
            # log(1 - sigmoid(x)) is logsigmoid(-x), which does not cancel at sigmoid(x) near 1.
            log_p, log_not_p = F.logsigmoid(value), F.logsigmoid(-value)
            loss = -weights[column] * aim * log_p - (1 - aim) * log_not_p
            hard, soft = (hard, soft + float(loss)) if is_soft else (hard + float(loss), soft)
    loss_sum = several_labels_loss(logits, labels, weights)
    assert_close(float(loss_sum.loss), hard, rtol=1e-6, atol=1e-6)
    counted = labels != IGNORED
    assert int(loss_sum.correct) == int((((logits > 0) == (labels > 0)) & counted).sum())
    got = soft_several_labels_loss(logits, labels, teacher, temperature, alpha, weights)
    due = (1 - alpha) * hard + alpha * temperature**2 * soft
    assert_close(float(got.loss), due, rtol=1e-6, atol=1e-6)
    assert got.correct == loss_sum.correct


@given(seeds, st.integers(1, 12), st.integers(2, 5), temperatures)
def test_a_weight_counts_an_example_that_often(
    seed: int, n: int, classes: int, temperature: float
) -> None:
    logits, labels, teacher = drawn(seed, n, classes)
    times = torch.arange(1, classes + 1)
    often = [row for row in range(n) for _ in range(times[labels[row]] if labels[row] >= 0 else 1)]
    weights = times.double()
    assert_close(
        classification_loss(logits, labels, weights).loss,
        classification_loss(logits[often], labels[often]).loss,
    )
    assert_close(
        soft_classification_loss(logits, labels, teacher, temperature, 0.3, weights).loss,
        soft_classification_loss(
            logits[often], labels[often], teacher[often], temperature, 0.3
        ).loss,
    )


def test_the_tally_is_of_the_kind_that_the_shapes_say() -> None:
    logits, labels, teacher = drawn(0, 6, 4)
    assert task_loss(logits, labels) == classification_loss(logits, labels)
    words, tags, taught = (values.unflatten(0, (2, 3)) for values in (logits, labels, teacher))
    assert task_loss(words, tags) == classification_loss(logits, labels)
    due = soft_classification_loss(logits, labels, teacher, 2.0, 0.5)
    assert soft_task_loss(words, tags, taught, 2.0, 0.5) == due
    column, numbers = logits[:, :1], labels.double()
    assert task_loss(column, numbers) == regression_loss(column, numbers)
    due = soft_regression_loss(column, numbers, teacher[:, :1], 0.5)
    assert soft_task_loss(column, numbers, teacher[:, :1], 2.0, 0.5) == due
    several = drawn_several(0, 6, 1)
    assert task_loss(*several[:2]) == several_labels_loss(*several[:2])
    due = soft_several_labels_loss(*several, 2.0, 0.5)
    assert soft_task_loss(*several, 2.0, 0.5) == due


def test_a_classifier_of_tokens_tallies_every_position(
    tiny: Config, scramble: Scramble, batch: Batch
) -> None:
    model = scramble(SqueezeBertForTokenClassification(tiny(id2label={0: "O", 1: "B-X"}))).eval()
    inputs = batch(tiny())
    labels = (inputs["input_ids"] % 2).where(inputs["attention_mask"] == 1, IGNORED)
    out = model(**inputs, labels=labels)
    assert out.logits.shape == (4, 20, 2)
    due = one_by_one(out.logits.flatten(0, 1), labels.flatten())
    assert_same(out.loss_sums["task"], due)
    model.train().dropout.p = 1.0
    assert_close(model(**inputs).logits, model.classifier.bias.expand(4, 20, 2))
