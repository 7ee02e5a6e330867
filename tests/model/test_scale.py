"""A regression's scale becomes a part of the saved weights, and of no weights that are
trained on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sqzb.data.dataset import Classes, Number
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.model.open import open_classifier
from sqzb.model.scale import put_on_scale, scale_taken_up, take_up_scale, to_scale, to_unit
from sqzb.model.transformers_classifier import TransformersClassifier
from sqzb.tokenizer import save_tokenizer, train_tokenizer

KIND = Number(900.0, 1100.0, mean=1000.0, std=25.0)

Config = Callable[..., SqueezeBertConfig]
Batch = Callable[..., dict[str, Tensor]]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), max_size=9), st.floats(-1e3, 1e3), st.floats(0.01, 1e3)
)
def test_a_number_comes_back_from_its_scale(values: list[float], mean: float, std: float) -> None:
    kind = Number(-1e4, 1e4, mean, std)
    numbers = np.array(values, np.float32)
    back = to_unit(kind, to_scale(kind, numbers))
    np.testing.assert_allclose(back, numbers, rtol=1e-5, atol=1e-5 * (std + abs(mean)))


def test_what_has_no_scale_is_left_as_it_is() -> None:
    numbers = np.array([0.1, 0.7], np.float32)
    for kind in (Number(0, 5), Classes(("a", "b"))):
        assert to_scale(kind, numbers) is numbers
        assert to_unit(kind, numbers) is numbers


@pytest.fixture
def model(tiny: Config) -> SqueezeBertForSequenceClassification:
    torch.manual_seed(0)
    config = tiny(id2label={0: "score"}, problem_type="regression", initializer_range=0.3)
    return SqueezeBertForSequenceClassification(config).eval()


def test_within_the_model_has_the_unit_and_then_the_very_weights(
    model: SqueezeBertForSequenceClassification, tiny: Config, batch: Batch
) -> None:
    put_on_scale(model, KIND, "here")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = batch(tiny())
    raw = model(**inputs).logits.detach().numpy()
    with scale_taken_up(model):
        assert model.config.label_scale is None
        got = model(**inputs).logits.detach().numpy()
    np.testing.assert_allclose(got, to_unit(KIND, raw), rtol=1e-6)
    assert model.config.label_scale == [1000.0, 25.0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_without_a_scale_nothing_happens(model: SqueezeBertForSequenceClassification) -> None:
    put_on_scale(model, Number(0, 5), "here")
    assert model.config.label_scale is None
    before = model.classifier.bias.clone()
    take_up_scale(model)
    with scale_taken_up(model):
        assert torch.equal(model.classifier.bias, before)


def test_a_checkpoint_opens_in_the_unit(
    model: SqueezeBertForSequenceClassification, tmp_path: Path, tiny: Config, batch: Batch
) -> None:
    put_on_scale(model, KIND, "here")
    tokenizer = train_tokenizer(["a b c"] * 3, 40, lowercase=True)
    model.save_pretrained(tmp_path, tokenizer)
    inputs = batch(tiny())
    opened = open_classifier(tmp_path).model.eval()
    due = to_unit(KIND, model(**inputs).logits.detach().numpy())
    np.testing.assert_allclose(opened(**inputs).logits.detach().numpy(), due, rtol=1e-6)
    assert open_classifier(tmp_path, id2label={0: "new"}).model.config.label_scale is None


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_models_of_transformers_take_the_scale_up(kind: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "pad_token_id": 0,
    }
    if kind == "DistilBert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 4, "hidden_dim": 32}
    tokenizer = train_tokenizer(["a b c"] * 3, 40, lowercase=True)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=32, num_labels=1, **sizes
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    theirs.save_pretrained(tmp_path / "start")
    save_tokenizer(tokenizer, tmp_path / "start", 32)

    opened = open_classifier(tmp_path / "start", id2label={0: "score"})
    assert isinstance(opened.model, TransformersClassifier)
    put_on_scale(opened.model, KIND, "here")
    opened.model.eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4)}
    raw = opened.model(**inputs).logits.detach().numpy()
    with scale_taken_up(opened.model):
        opened.model.save_pretrained(tmp_path / "final", opened.tokenizer)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    got = again.eval()(**inputs).logits.detach().numpy()
    np.testing.assert_allclose(got, to_unit(KIND, raw), rtol=1e-6)
    assert getattr(again.config, "label_scale", None) is None
    np.testing.assert_array_equal(opened.model(**inputs).logits.detach().numpy(), raw)


def test_a_last_layer_without_a_bias_is_refused(
    model: SqueezeBertForSequenceClassification,
) -> None:
    model.classifier.bias = None  # type: ignore[assignment]
    with pytest.raises(UserError, match="The model in here cannot learn numbers on a scale"):
        put_on_scale(model, KIND, "here")
    put_on_scale(model, Number(0, 5), "here")
