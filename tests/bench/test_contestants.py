"""BERT as a SqueezeBERT with one group computes the same; the ceiling is that of the operations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saved_runs import save_run
from small_bert import SIZES, bert, save_bert
from sqzb.bench import contestants
from sqzb.bench.cells import GENERAL, SQZB
from sqzb.bench.contestants import as_squeezebert, open_other, open_own
from sqzb.bench.general import count_flops
from sqzb.errors import UserError
from sqzb.export.heads import CLASSIFIER, ENCODER, OUTPUTS, TOKENS, Head
from sqzb.model import SqueezeBertConfig
from sqzb.model.costs import costs, total

transformers = pytest.importorskip("transformers")
FIELDS = SqueezeBertConfig.model_fields
ONE_GROUP: dict[str, Any] = {name: 1 for name in FIELDS if name.endswith("_groups")}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bert-base be tiny."""
    monkeypatch.setattr(contestants, "BERT_SIZES", SIZES)


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    counted = count_flops(tmp_path, ENCODER, 2, 128)
    assert counted == total(costs(SqueezeBertConfig(**ONE_GROUP), 2, 128)).flops
    ours = total(costs(SqueezeBertConfig(), 2, 128)).flops
    assert counted / ours == pytest.approx(3.02, abs=0.005)


@pytest.mark.parametrize(("length", "ceiling"), [(16, 3.17), (128, 3.02), (512, 2.62)])
def test_the_ceiling_falls_with_the_length(length: int, ceiling: float) -> None:
    configs = SqueezeBertConfig(**ONE_GROUP), SqueezeBertConfig()
    theirs, ours = (total(costs(config, 1, length)).flops for config in configs)
    assert theirs / ours == pytest.approx(ceiling, abs=0.005)


@pytest.mark.parametrize("head", [CLASSIFIER, TOKENS, ENCODER])
@torch.no_grad()
def test_bert_is_a_squeezebert_with_one_group(head: Head) -> None:
    theirs = bert(head)
    ours = as_squeezebert(theirs, head)
    ids = torch.randint(5, 100, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    types = (torch.arange(9) > 3).long().repeat(3, 1)
    expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types)
    given = ours(ids, mask, types)
    for name in OUTPUTS[head]:
        before, after = getattr(expected, name), getattr(given, name)
        if before.ndim == 3:
            before, after = before[mask == 1], after[mask == 1]
        np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-5)


def test_a_bert_has_two_forms_with_equal_operations(vocabulary: Path, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert", vocabulary, CLASSIFIER)
    usual, ours = open_own(str(folder), tmp_path / "work")
    assert (usual.form, ours.form) == (GENERAL, SQZB)
    assert (usual.title, ours.title) == ("bert, as usual", "bert, same care")
    assert usual.flops(2, 7) == ours.flops(2, 7)
    assert usual.head == ours.head == CLASSIFIER


def test_a_bert_of_another_activation_has_one_form(vocabulary: Path, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert", vocabulary, ENCODER, hidden_act="silu")
    (only,) = open_own(str(folder), tmp_path / "work")
    assert only.form == GENERAL and only.title == "bert"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("labels", "tokens", "head"),
    [(("a", "b", "c"), False, CLASSIFIER), (("O", "B-X"), True, TOKENS), (None, False, ENCODER)],
)
def test_bert_base_has_the_head_of_the_model(
    labels: tuple[str, ...] | None, tokens: bool, head: Head, vocabulary: Path, tmp_path: Path
) -> None:
    run = save_run(tmp_path / "run", vocabulary, labels, tokens=tokens)
    (own,) = open_own(str(run), tmp_path / "work")
    usual, ours = open_other("bert-base", own, tmp_path / "work")
    assert own.head == usual.head == ours.head == head
    assert not usual.is_trained and not ours.is_trained
    assert usual.weights == "random"
    assert (usual.id2label or None) == (dict(enumerate(labels)) if labels else None)


def test_a_model_without_the_head_gets_a_random_one(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary, ("a", "b", "c"))
    pretrained = save_run(tmp_path / "pretrained", vocabulary)
    (own,) = open_own(str(run), tmp_path / "work")
    (other,) = open_other(str(pretrained), own, tmp_path / "work")
    assert other.head == CLASSIFIER and not other.is_trained
    assert other.weights == f"{pretrained}, with a random head"


def test_models_that_cannot_be_opened_are_refused(vocabulary: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="no final/ model yet"):
        open_own(str(unfinished), tmp_path / "work")
    broken = save_run(tmp_path / "broken", vocabulary, ("a", "b"))
    weights = broken / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="broken"):
        open_own(str(broken), tmp_path / "work")
