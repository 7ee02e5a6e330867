"""The loss without logits in memory is cross-entropy, with its gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model import fused_loss as module
from sqzb.model.fused_loss import linear_cross_entropy
from sqzb.model.heads import IGNORED

WIDTH, CLASSES = 6, 11


Tensors = tuple[Tensor, Tensor, Tensor]  # hidden states, weight and bias


def inputs(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensors, Tensor]:
    """Tensors, and labels of which a third do not count."""
    draw = torch.Generator().manual_seed(seed)
    x, weight, bias = (
        torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((rows, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    )
    labels = torch.randint(0, CLASSES, (rows,), generator=draw)
    labels[torch.rand(rows, generator=draw) < 1 / 3] = IGNORED
    return (x, weight, bias), labels


def plain(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(x, weight, bias)
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return loss, (logits.argmax(-1) == labels).sum()


def with_gradients(loss: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(3 * loss, (x, weight, bias))]


@given(rows=st.integers(0, 9), at_once=st.integers(1, 60), seed=st.integers(0, 999))
def test_loss_hits_and_gradients_are_those_of_cross_entropy(
    rows: int, at_once: int, seed: int
) -> None:
    """In parts of any number of rows, of which the last may have fewer."""
    tensors, labels = inputs(rows, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        loss, correct = linear_cross_entropy(*tensors, labels, IGNORED)
        got = with_gradients(loss, *tensors)
    loss_due, correct_due = plain(*tensors, labels)
    assert correct == correct_due
    for ours, theirs in zip(got, with_gradients(loss_due, *tensors), strict=True):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_gradients_are_those_of_differences() -> None:
    tensors, labels = inputs(7, 0)

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(x, weight, bias, labels, IGNORED)[0]

    assert torch.autograd.gradcheck(loss, tensors, check_undefined_grad=False)


@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [(torch.float32, False, 1e-6), (torch.float32, True, 2e-2), (torch.bfloat16, False, 2e-2)],
)
def test_in_fewer_bits_it_is_near_float64(
    dtype: torch.dtype, autocast: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5 * CLASSES)
    tensors, labels = inputs(32, 1, dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = linear_cross_entropy(*tensors, labels, IGNORED)
    assert loss.dtype is torch.float32
    got = with_gradients(loss, *tensors)
    assert [x.dtype for x in got[1:]] == [dtype] * 3
    x, weight, bias = (tensor.detach().double().requires_grad_() for tensor in tensors)
    wide = (x, weight, bias)
    for ours, theirs in zip(got, with_gradients(plain(*wide, labels)[0], *wide), strict=True):
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


def test_classes_that_fill_up_a_gpus_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, labels = inputs(8, 2)
    due = with_gradients(linear_cross_entropy(*tensors, labels, IGNORED)[0], *tensors)

    def filled(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return F.pad(weight, (0, 0, 0, 5)), F.pad(bias, (0, 5), value=-torch.inf)

    monkeypatch.setattr(module, "_aligned", filled)
    got = with_gradients(linear_cross_entropy(*tensors, labels, IGNORED)[0], *tensors)
    for ours, theirs in zip(got, due, strict=True):
        assert_close(ours, theirs)


def test_never_more_logits_than_at_once_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, labels = inputs(12, 3)
    monkeypatch.setattr(module, "AT_ONCE", 3 * CLASSES)
    sizes: list[int] = []
    own = F.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        sizes.append(len(x))
        return own(x, weight, bias)

    monkeypatch.setattr(F, "linear", linear)
    linear_cross_entropy(*tensors, labels, IGNORED)
    assert sizes == [3, 3, 3, 3]


def test_without_gradients_none_are_computed() -> None:
    tensors, labels = inputs(6, 4)
    with torch.no_grad():
        loss, correct = linear_cross_entropy(*tensors, labels, IGNORED)
    loss_due, correct_due = plain(*tensors, labels)
    assert_close(loss, loss_due.detach())
    assert not loss.requires_grad and correct == correct_due


@pytest.mark.parametrize("keep", [False, True])
def test_the_operator_keeps_the_rules_of_torch(keep: bool) -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    tensors, labels = inputs(5, 5)
    operator = torch.ops.sqzb.linear_cross_entropy.default
    torch.library.opcheck(operator, (*tensors, labels, IGNORED, keep), test_utils=tests)


def test_torch_compile_takes_it_whole() -> None:
    tensors, labels = inputs(5, 6)

    def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return 2 * linear_cross_entropy(x, weight, bias, labels, IGNORED)[0]

    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    due = with_gradients(doubled(*tensors), *tensors)
    for ours, theirs in zip(with_gradients(compiled(*tensors), *tensors), due, strict=True):
        assert_close(ours, theirs)


def test_a_pretraining_model_with_it_is_the_same(
    tiny: Any, scramble: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: SqueezeBertConfig = tiny(num_hidden_layers=1)
    model = scramble(SqueezeBertForPreTraining(config)).double()
    monkeypatch.setattr(module, "AT_ONCE", 4 * config.vocab_size)
    ids = torch.randint(1, 60, (3, 8))
    labels = torch.where(torch.rand(3, 3) < 0.7, ids[:, :3], IGNORED)
    batch = {"input_ids": ids, "mlm_positions": torch.tensor([[1, 4, 5]] * 3), "mlm_labels": labels}

    def run() -> dict[str, Tensor]:
        model.zero_grad()
        output = model(**batch, sop_labels=torch.tensor([0, 1, 1]))
        assert output.mlm_logits is None
        (output.loss_sums["mlm"].loss + output.loss_sums["sop"].loss).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return grads | {"loss": output.loss_sums["mlm"].loss.detach()}

    due = run()
    model.fused_loss = True
    got = run()
    assert due.keys() == got.keys()
    for name, tensor in due.items():
        assert_close(got[name], tensor, rtol=1e-9, atol=1e-11)
