"""transformers' SqueezeBERT and ours are one model: the same numbers, losses and gradients, from
each other's files.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.testing import assert_close

import sqzb.model
from sqzb.model import SqueezeBertConfig
from sqzb.model.checkpoint import SavedModel
from sqzb.model.heads import classification_loss

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
Batch = Callable[..., dict[str, Tensor]]

HEADS = {
    "SqueezeBertModel": "AutoModel",
    "SqueezeBertForMaskedLM": "AutoModelForMaskedLM",
    "SqueezeBertForSequenceClassification": "AutoModelForSequenceClassification",
    "SqueezeBertForTokenClassification": "AutoModelForTokenClassification",
}
# Their encoder layers ignore layer_norm_eps, the other LayerNorms do not: it is large enough to
# tell.
SHAPES: dict[str, dict[str, Any]] = {
    "as published": {"layer_norm_eps": 0.05},
    "no groups": {f"{layer}_groups": 1 for layer in ("q", "k", "v", "intermediate", "output")},
    "every layer its own groups": {
        "q_groups": 2,
        "k_groups": 4,
        "v_groups": 8,
        "post_attention_groups": 16,
        "intermediate_groups": 32,
        "output_groups": 1,
        "layer_norm_eps": 0.05,
        "hidden_act": "gelu_new",
    },
    "groups across heads": {
        "hidden_size": 60,
        "num_attention_heads": 3,
        "intermediate_size": 100,
        "hidden_act": "relu",
        "pad_token_id": 7,
        "type_vocab_size": 3,
    },
}
LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}

pytestmark = pytest.mark.parametrize("shape", SHAPES)
each_head = pytest.mark.parametrize(
    ("head", "id2label"),
    [(head, LABELS) for head in HEADS] + [("SqueezeBertForSequenceClassification", {0: "score"})],
)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Fail on anything that transformers logs at warning level, and on Python's warnings."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record)  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in told] == []
    assert [str(warning.message) for warning in warned] == []


def ours(head: str, config: SqueezeBertConfig) -> SavedModel:
    model: SavedModel = getattr(sqzb.model, head)(config)
    return model.eval()


def theirs(head: str, config: SqueezeBertConfig) -> transformers.PreTrainedModel:
    values = transformers.SqueezeBertConfig.from_dict(config.to_hf(head))
    model: transformers.PreTrainedModel = getattr(transformers, head)(values)
    model.eval()
    return model


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        out = model(**batch)
    return (
        [out.last_hidden_state, out.pooler_output]
        if hasattr(out, "pooler_output")
        else [out.logits]
    )


def assert_same_numbers(one: nn.Module, other: nn.Module, batch: dict[str, Tensor]) -> None:
    for left_out in ((), ("token_type_ids",), ("token_type_ids", "attention_mask")):
        inputs = {name: tensor for name, tensor in batch.items() if name not in left_out}
        for got, due in zip(outputs(one, inputs), outputs(other, inputs), strict=True):
            assert due.std() > 0.05
            assert_close(got, due, rtol=0, atol=1e-5)


@each_head
def test_their_files_give_the_same_numbers_here(
    shape: str,
    head: str,
    id2label: dict[int, str],
    tiny: Config,
    scramble: Scramble,
    batch: Batch,
    tmp_path: Path,
) -> None:
    config = tiny(**SHAPES[shape], id2label=id2label)
    model = scramble(theirs(head, config))
    model.save_pretrained(tmp_path)
    opened = getattr(sqzb.model, head).from_pretrained(tmp_path).eval()
    assert opened.config == config
    assert_same_numbers(opened, model, batch(config))


@each_head
def test_our_files_open_there_without_a_word_and_give_the_same_numbers(
    shape: str,
    head: str,
    id2label: dict[int, str],
    tiny: Config,
    scramble: Scramble,
    batch: Batch,
    tmp_path: Path,
) -> None:
    config = tiny(**SHAPES[shape], id2label=id2label)
    model = scramble(ours(head, config))
    model.save_pretrained(tmp_path)
    with no_warnings():
        opened, told = getattr(transformers, HEADS[head]).from_pretrained(
            tmp_path, output_loading_info=True
        )
    assert not any(told.values()), told
    assert type(opened).__name__ == head
    assert opened.config.architectures == [head]
    assert opened.config.id2label == id2label
    assert_same_numbers(opened, model, batch(config))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    # The pooler has no gradient under the MLM head.
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("head", "id2label", "task"),
    [
        ("SqueezeBertForMaskedLM", LABELS, "mlm"),
        ("SqueezeBertForSequenceClassification", LABELS, "task"),
        ("SqueezeBertForSequenceClassification", {0: "score"}, "task"),
        ("SqueezeBertForSequenceClassification", LABELS, "several labels"),
        ("SqueezeBertForSequenceClassification", {0: "only"}, "several labels"),
        ("SqueezeBertForTokenClassification", LABELS, "tags"),
    ],
)
def test_loss_and_gradients_of_every_parameter_are_theirs(
    shape: str,
    head: str,
    id2label: dict[int, str],
    task: str,
    tiny: Config,
    scramble: Scramble,
    batch: Batch,
) -> None:
    problem_type = "multi_label_classification" if task == "several labels" else None
    config = tiny(**SHAPES[shape], id2label=id2label, problem_type=problem_type)
    inputs = batch(config)
    every_third = inputs["input_ids"] % 3 == 0
    labels = {
        "mlm": inputs["input_ids"].where(every_third, -100),
        "tags": (inputs["input_ids"] % len(id2label)).where(every_third, -100),
        "several labels": (torch.arange(4 * len(id2label)) % 2.0).view(4, -1),
        "task": torch.arange(4) % len(id2label)
        if len(id2label) > 1
        else torch.tensor([0.0, 2.5, 5.0, 1.2]),
    }[task]
    one, other = scramble(ours(head, config)).train(), scramble(theirs(head, config)).train()
    # The loss of masked tokens is that of pretraining, which reads it from logits that are the
    # same.
    loss_sum = (
        classification_loss(one(**inputs).logits.flatten(0, 1), labels.flatten())
        if task == "mlm"
        else one(**inputs, labels=labels).loss_sums["task"]
    )
    due = other(**inputs, labels=labels).loss
    mean = loss_sum.loss / (labels != -100).sum()
    assert_close(mean, due)
    got, expected = gradients(one, mean), gradients(other, due)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(got[name], gradient, rtol=1e-3, atol=1e-5, msg=partial("{}: {}".format, name))
