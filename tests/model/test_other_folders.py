"""Folders that others wrote: divided weights, odd configurations, types and tokenizers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from examples import scaled
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.model.open import open_classifier
from sqzb.tokenizer import TOKENIZER_FILES, load_tokenizer, train_tokenizer

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}

Kind = str
Write = Callable[[Path], Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, dict[str, bytes]]:
    """Contents of a folder of each kind: a SqueezeBERT, and a BERT of transformers."""
    folder = tmp_path_factory.mktemp("folders")
    tokenizer = train_tokenizer(["a text of words and more words"] * 5, 100, lowercase=True)
    size = tokenizer.get_vocab_size()
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig(vocab_size=size, **SIZES))
    model.save_pretrained(folder / "squeezebert", tokenizer)
    config = transformers.BertConfig(vocab_size=size, **SIZES)
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "bert")
    for name in TOKENIZER_FILES:
        (folder / "bert" / name).write_bytes((folder / "squeezebert" / name).read_bytes())
    return {
        kind: {path.name: path.read_bytes() for path in (folder / kind).iterdir()}
        for kind in ("squeezebert", "bert")
    }


@pytest.fixture(params=["squeezebert", "bert"])
def folder(request: pytest.FixtureRequest, files: Any, tmp_path: Path) -> Path:
    """A folder that can be opened."""
    return write(tmp_path / "model", files[request.param])


def write(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def divide(folder: Path) -> dict[str, str]:
    """Divide the weights among two files, and return the index from tensors to files."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = list(tensors)
    parts = (names[:5], names[5:])
    for shard, part in zip(SHARDS, parts, strict=True):
        save_file({name: tensors[name] for name in part}, folder / shard, {"format": "pt"})
    return {name: shard for shard, part in zip(SHARDS, parts, strict=True) for name in part}


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as told:
        open_classifier(folder)
    message = str(told.value)
    assert "\n" not in message and len(message) < 2000
    return message


def test_divided_weights_open_like_single_ones(folder: Path) -> None:
    before = open_classifier(folder).model.state_dict()
    index = divide(folder)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    after = open_classifier(folder).model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/model.safetensors", "a\\b", ".."])
def test_an_index_that_leads_out_of_its_folder_is_refused(folder: Path, name: str) -> None:
    index = divide(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(index, name)}))
    assert "weights are read only from" in refusal(folder)


@pytest.mark.parametrize(
    "index",
    [
        *("", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": [1]}}'),
        *('{"weight_map": {"a": 1}}', '{"weight_map": {}}', '{"weight_map": {"a": "gone"}}'),
        '{"a":' * 100_000,
    ],
    ids=lambda index: index[:20],
)
def test_a_damaged_index_is_refused(folder: Path, index: str) -> None:
    divide(folder)
    (folder / INDEX).write_text(index)
    message = refusal(folder)
    assert (INDEX in message and "again" in message) or "read only from" in message


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, "x", "1", -1, 0, 1, 2**31, 2**40, 2**70, 1.5, 1e300, float("inf"), [], {}, True]
)
KEYS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size"),
    *("layer_norm_eps", "pad_token_id", "q_groups", "id2label", "problem_type", "thresholds"),
    *("label_scale", "calibration_temperature", "architectures", "hidden_dropout_prob"),
    *("initializer_range", "num_labels", "embedding_size", "model_type"),
)


@given(kind=st.sampled_from(["squeezebert", "bert"]), key=st.sampled_from(KEYS), value=VALUES)
@settings(
    max_examples=scaled(6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_value_in_a_configuration_opens_or_is_refused(
    files: Any, tmp_path: Path, kind: str, key: str, value: Any
) -> None:
    folder = tmp_path / kind
    if not folder.exists():
        write(folder, files[kind])
    config = json.loads(files[kind]["config.json"])
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    try:
        open_classifier(folder)
    except UserError as error:
        assert len(str(error)) < 2000


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_a_type_that_holds_none_are_refused(folder: Path, dtype: torch.dtype) -> None:
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()  # the tensors are mapped
    save_file({name: one.to(dtype) for name, one in tensors.items()}, folder / SINGLE)
    assert "instead of float64, float32, float16 or bfloat16" in refusal(folder)


@pytest.mark.parametrize("number", [2**31, 2**32 - 1])
def test_a_huge_id_of_a_token_is_refused(folder: Path, number: int) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zz"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "tokenizer.json" in refusal(folder)


def test_a_byte_order_mark_in_a_vocabulary_is_no_character(files: Any, tmp_path: Path) -> None:
    plain = files["squeezebert"]["vocab.txt"]
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + plain)
    (tmp_path / "plain.txt").write_bytes(plain)
    read = [load_tokenizer(tmp_path / name).get_vocab() for name in ("vocab.txt", "plain.txt")]
    assert read[0] == read[1]


@pytest.mark.parametrize("value", [2**31, 2**70])
@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size", "num_hidden_layers"])
def test_a_size_that_would_take_all_memory_is_refused(folder: Path, key: str, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    message = refusal(folder)
    assert key in message or "do not fit" in message


@pytest.mark.parametrize("value", [2**31, 2**70])
def test_a_huge_number_of_labels_is_refused(folder: Path, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("id2label", "label2id"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": value}))
    assert "num_labels" in refusal(folder)
