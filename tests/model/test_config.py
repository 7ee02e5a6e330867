"""The configuration reads and writes Hugging Face's config.json, and knows which sizes no
model can have.
"""

import json
from typing import Any

import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from examples import scaled
from sqzb.model.config import SqueezeBertConfig

GROUPS = [
    f"{layer}_groups" for layer in ("q", "k", "v", "post_attention", "intermediate", "output")
]
rates = st.floats(0, 1, exclude_max=True)
sizes = st.sampled_from([1, 2, 3, 4, 6, 8, 12])
labels = st.lists(st.text(), min_size=1, max_size=5, unique=True).map(
    lambda names: dict(enumerate(names))
)
configs = st.builds(
    SqueezeBertConfig,
    vocab_size=st.integers(6, 100),
    hidden_size=st.sampled_from([12, 24, 30, 32]),
    num_hidden_layers=st.integers(1, 3),
    num_attention_heads=sizes,
    intermediate_size=st.sampled_from([12, 24, 36, 40]),
    hidden_act=st.sampled_from(["gelu", "gelu_new", "relu"]),
    hidden_dropout_prob=rates,
    attention_probs_dropout_prob=rates,
    max_position_embeddings=st.integers(4, 40),
    type_vocab_size=st.integers(2, 4),
    initializer_range=st.floats(0.001, 1),
    layer_norm_eps=st.floats(1e-12, 0.1),
    pad_token_id=st.integers(0, 9),
    **dict.fromkeys(GROUPS, sizes),
    id2label=labels,
    problem_type=st.sampled_from(
        [
            *(None, None, "regression", "single_label_classification"),
            "multi_label_classification",
        ]
    ),
    thresholds=st.sampled_from([None, None, None, [0.2], [0.5, 0.75]]),
    calibration_temperature=st.none() | st.floats(0.05, 20),
)


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    """What is left of `values` after a file: keys as text, for one."""
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


@settings(max_examples=scaled(20))
@given(configs)
def test_a_config_comes_back_from_its_json(config: SqueezeBertConfig) -> None:
    assume(not config.problems())
    assert SqueezeBertConfig.from_hf(as_json(config.to_hf("SqueezeBertModel"))) == config


@settings(max_examples=scaled(15))
@given(configs)
def test_transformers_reads_and_writes_the_same_config(config: SqueezeBertConfig) -> None:
    assume(not config.problems())
    theirs = transformers.SqueezeBertConfig.from_dict(as_json(config.to_hf("SqueezeBertModel")))
    for name, value in config.model_dump().items():
        assert getattr(theirs, name, None) == value
    assert theirs.num_labels == config.num_labels
    assert theirs.label2id == {name: index for index, name in config.id2label.items()}
    assert SqueezeBertConfig.from_hf(as_json(theirs.to_dict())) == config


def fits_transformers(config: SqueezeBertConfig) -> bool:
    try:
        values = transformers.SqueezeBertConfig.from_dict(config.to_hf("SqueezeBertModel"))
        with torch.device("meta"):
            transformers.SqueezeBertModel(values)
    except (ValueError, AssertionError):
        return False
    return True


@pytest.mark.parametrize("changed", ["num_attention_heads", *GROUPS])
@pytest.mark.parametrize("parts", [1, 5, 8, 9, 12])
def test_problems_are_the_divisions_that_transformers_cannot_build(
    changed: str, parts: int
) -> None:
    base: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    config = SqueezeBertConfig(**base | dict.fromkeys(GROUPS, 1) | {changed: parts})
    assert fits_transformers(config) == (not config.problems())


@pytest.mark.parametrize("pad_token_id", [0, 59, 60, 61])
def test_padding_is_a_token_of_the_vocabulary(pad_token_id: int) -> None:
    config = SqueezeBertConfig(vocab_size=60, pad_token_id=pad_token_id, num_hidden_layers=1)
    assert fits_transformers(config) == (not config.problems()) == (pad_token_id < 60)


@settings(max_examples=scaled(20))
@given(configs)
def test_every_problem_names_its_field_and_its_number_and_stops_reading(
    config: SqueezeBertConfig,
) -> None:
    problems = config.problems()
    assume(problems)
    with pytest.raises(ValueError) as refused:
        SqueezeBertConfig.from_hf(config.to_hf("SqueezeBertModel"))
    for name, problem in problems:
        assert str(getattr(config, name)) in problem
        assert f"{name}: {problem}" in str(refused.value)


def test_defaults_are_the_published_model() -> None:
    ours, theirs = SqueezeBertConfig(), transformers.SqueezeBertConfig()
    own = {"thresholds": None, "calibration_temperature": None, "label_scale": None}
    known = SqueezeBertConfig.model_fields.keys() - own
    assert {name: getattr(theirs, name) for name in known} | own == ours.model_dump()
    assert ours.problems() == []
    assert SqueezeBertConfig.from_hf({"model_type": "squeezebert"}) == ours


@given(st.none() | st.text() | st.just("bert"))
def test_another_models_config_is_refused(model_type: str | None) -> None:
    assume(model_type != "squeezebert")
    with pytest.raises(ValueError, match="squeezebert"):
        SqueezeBertConfig.from_hf({"model_type": model_type})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "768"),
        ("hidden_size", 0),
        ("hidden_size", 768.5),
        ("hidden_act", "silu"),
        ("hidden_dropout_prob", 1.0),
        ("type_vocab_size", 1),
        ("embedding_size", 128),
        ("problem_type", "token_classification"),
        ("thresholds", [0.5, 0.5]),
        ("calibration_temperature", 0.0),
        ("id2label", {"one": "A"}),
        ("id2label", {"0": "A", "2": "B"}),
        ("id2label", {}),
        ("id2label", ["A", "B"]),
        ("tie_word_embeddings", False),
    ],
)
def test_what_the_model_cannot_be_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key}.*: ") as refused:
        SqueezeBertConfig.from_hf({"model_type": "squeezebert", key: value})
    assert "errors.pydantic.dev" not in str(refused.value)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_the_stored_kind_of_problem_must_be_the_one_that_the_labels_make(labels: int) -> None:
    right, wrong = sorted(("regression", "single_label_classification"), reverse=labels > 1)
    values = {"model_type": "squeezebert", "num_labels": labels}
    assert SqueezeBertConfig.from_hf(values | {"problem_type": right}).problem_type == right
    with pytest.raises(ValueError, match=f"problem_type: {wrong} .*{labels}"):
        SqueezeBertConfig.from_hf(values | {"problem_type": wrong})


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_any_number_of_labels_may_hold_at_once(labels: int) -> None:
    values = {"model_type": "squeezebert", "num_labels": labels}
    values |= {"problem_type": "multi_label_classification"}
    thresholds = [0.5] * labels
    assert SqueezeBertConfig.from_hf(values | {"thresholds": thresholds}).thresholds == thresholds
    for wrong in ([0.5] * (labels + 1), [*thresholds[1:], 1.0]):
        with pytest.raises(ValueError, match="thresholds: "):
            SqueezeBertConfig.from_hf(values | {"thresholds": wrong})


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"hidden_size.*hidden_act"):
        SqueezeBertConfig.from_hf(
            {"model_type": "squeezebert", "hidden_size": "many", "hidden_act": "silu"}
        )


def test_what_other_tools_add_is_ignored() -> None:
    added = {
        "torch_dtype": "float16",
        "transformers_version": "4.0",
        "bos_token_id": None,
        "q_groups": None,
        "new": 1,
    }
    assert SqueezeBertConfig.from_hf({"model_type": "squeezebert", **added}) == SqueezeBertConfig()


def test_a_number_of_labels_without_names_is_read_as_transformers_reads_it() -> None:
    values = {"model_type": "squeezebert", "num_labels": 3}
    assert (
        SqueezeBertConfig.from_hf(values).id2label
        == transformers.SqueezeBertConfig.from_dict(values).id2label
    )


def test_a_config_cannot_be_changed_in_place_or_misspelt() -> None:
    config = SqueezeBertConfig()
    with pytest.raises(ValidationError):
        config.hidden_size = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="groups"):
        SqueezeBertConfig(groups=4)  # type: ignore[call-arg]
