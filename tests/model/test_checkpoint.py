"""The Hugging Face folder: what lies in it, what is read of it, and what is refused."""

import io
import json
import pickle
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.testing import assert_close

import sqzb.model
import sqzb.model.checkpoint
from examples import scaled
from sqzb.errors import UserError
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertModel,
)
from sqzb.model.checkpoint import SavedModel
from sqzb.tokenizer import train_tokenizer

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
Tensors = dict[str, Tensor]

CLASSES = (
    "SqueezeBertModel",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForPreTraining",
    "SqueezeBertForSequenceClassification",
)
NORM = ("weight", "bias")


def published_layout(config: SqueezeBertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published encoder, as listed from the implementation in
    transformers.
    """
    width, wide = config.hidden_size, config.intermediate_size
    layout: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, width),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        **{f"embeddings.LayerNorm.{part}": (width,) for part in NORM},
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for n in range(config.num_hidden_layers):
        for name, out, into in [
            ("attention.query", width, width // config.q_groups),
            ("attention.key", width, width // config.k_groups),
            ("attention.value", width, width // config.v_groups),
            ("post_attention.conv1d", width, width // config.post_attention_groups),
            ("intermediate.conv1d", wide, width // config.intermediate_groups),
            ("output.conv1d", width, wide // config.output_groups),
        ]:
            layout |= {
                f"encoder.layers.{n}.{name}.weight": (out, into, 1),
                f"encoder.layers.{n}.{name}.bias": (out,),
            }
        for name in ("post_attention", "output"):
            layout |= {f"encoder.layers.{n}.{name}.layernorm.{part}": (width,) for part in NORM}
    return layout


def layout_of(head: str, config: SqueezeBertConfig) -> dict[str, tuple[int, ...]]:
    if head == "SqueezeBertModel":
        return published_layout(config)
    width = config.hidden_size
    encoder = {f"transformer.{name}": shape for name, shape in published_layout(config).items()}
    if head == "SqueezeBertForSequenceClassification":
        return encoder | {
            "classifier.weight": (config.num_labels, width),
            "classifier.bias": (config.num_labels,),
        }
    return encoder | {
        "cls.predictions.bias": (config.vocab_size,),
        "cls.predictions.transform.dense.weight": (width, width),
        "cls.predictions.transform.dense.bias": (width,),
        **{f"cls.predictions.transform.LayerNorm.{part}": (width,) for part in NORM},
    }


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def assert_equal(model: nn.Module, tensors: Tensors) -> None:
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state[name].dtype == torch.float32
        assert_close(
            state[name], tensor.float(), rtol=0, atol=0, msg=partial("{}: {}".format, name)
        )


def write_folder(
    folder: Path, config: SqueezeBertConfig, head: str = "SqueezeBertForMaskedLM"
) -> Path:
    """A folder with nothing but config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf(head)))
    return folder


@pytest.fixture(scope="module")
def mlm(tiny: Config, scramble: Scramble) -> Any:
    return scramble(SqueezeBertForMaskedLM(tiny()))


@pytest.fixture(scope="module")
def pretraining(tiny: Config, scramble: Scramble) -> Any:
    return scramble(SqueezeBertForPreTraining(tiny()))


# What is written


@pytest.mark.parametrize("head", CLASSES)
def test_names_and_shapes_are_the_published_ones(head: str) -> None:
    config = SqueezeBertConfig()
    with torch.device("meta"):
        state = getattr(sqzb.model, head)(config).state_dict()
    sop = {name: state.pop(name) for name in list(state) if name.startswith("sop.")}
    assert shapes(state) == layout_of(head, config)
    assert bool(sop) == (head == "SqueezeBertForPreTraining")
    assert state[
        "encoder.layers.11.intermediate.conv1d.weight"
        if head == "SqueezeBertModel"
        else "transformer.encoder.layers.11.intermediate.conv1d.weight"
    ].shape == (3072, 192, 1)


@pytest.mark.parametrize("head", CLASSES)
def test_a_saved_model_is_config_and_weights_and_comes_back_equal(
    head: str, tiny: Config, tmp_path: Path
) -> None:
    config = tiny(
        q_groups=2, output_groups=8, layer_norm_eps=1e-5, id2label={0: "no", 1: "yes", 2: "maybe"}
    )
    cls: type[SavedModel] = getattr(sqzb.model, head)
    model = cls(config)
    model.save_pretrained(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    sop = {"sop_head.safetensors"} if head == "SqueezeBertForPreTraining" else set()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"} | sop
    assert shapes(load_file(folder / "model.safetensors")) == layout_of(head, config)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}  # transformers 4 refuses files without it
    written = json.loads((folder / "config.json").read_text())
    assert written["model_type"] == "squeezebert"
    assert written["architectures"] == [head.replace("ForPreTraining", "ForMaskedLM")]
    again = cls.from_pretrained(folder)
    assert again.config == config
    assert_equal(again, model.state_dict())
    again.save_pretrained(tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_tokenizer_goes_along(mlm: SqueezeBertForMaskedLM, tmp_path: Path) -> None:
    tokenizer: Tokenizer = train_tokenizer(["a cat and a dog"], 40, lowercase=True)
    mlm.save_pretrained(tmp_path, tokenizer)
    names = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("a dog")["input_ids"] == tokenizer.encode("a dog").ids
    assert theirs.model_max_length == mlm.config.max_position_embeddings


def test_a_save_that_fails_leaves_the_old_weights(
    mlm: SqueezeBertForMaskedLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlm.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def torn(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(OSError, match="space"):
        SqueezeBertForMaskedLM(mlm.config).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


# The SOP head


def test_the_sop_head_lies_beside_and_only_pretraining_asks_for_it(
    pretraining: SqueezeBertForPreTraining, tmp_path: Path
) -> None:
    pretraining.save_pretrained(tmp_path)
    state = pretraining.state_dict()
    sop = {name: tensor for name, tensor in state.items() if name.startswith("sop.")}
    assert (
        load_file(tmp_path / "sop_head.safetensors").keys()
        == sop.keys()
        == {"sop.weight", "sop.bias"}
    )
    assert_equal(SqueezeBertForPreTraining.from_pretrained(tmp_path), state)
    assert_equal(
        SqueezeBertForMaskedLM.from_pretrained(tmp_path),
        {n: t for n, t in state.items() if n not in sop},
    )
    encoder = {
        n.removeprefix("transformer."): t for n, t in state.items() if n.startswith("transformer.")
    }
    assert_equal(SqueezeBertModel.from_pretrained(tmp_path), encoder)


def test_a_model_without_a_sop_head_gets_a_new_one(
    mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    mlm.save_pretrained(tmp_path)
    torch.manual_seed(0)
    opened = SqueezeBertForPreTraining.from_pretrained(tmp_path)
    assert_equal(
        opened,
        mlm.state_dict() | {n: t for n, t in opened.state_dict().items() if n.startswith("sop.")},
    )
    assert opened.sop.weight.std().item() == pytest.approx(mlm.config.initializer_range, rel=0.3)
    assert not opened.sop.bias.any()


def test_a_sop_head_does_not_outlive_its_model(
    pretraining: SqueezeBertForPreTraining, mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    pretraining.save_pretrained(tmp_path)
    mlm.save_pretrained(tmp_path)
    opened = SqueezeBertForPreTraining.from_pretrained(tmp_path)
    assert not opened.sop.weight.equal(pretraining.sop.weight)


# The classifier


def test_new_labels_get_a_new_classifier_and_forget_the_kind_of_problem(
    tiny: Config, tmp_path: Path
) -> None:
    config = tiny(id2label={0: "a", 1: "b", 2: "c"}, problem_type="single_label_classification")
    model = SqueezeBertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    for labels in ({0: "score"}, {0: "x", 1: "y", 2: "z"}):
        opened = SqueezeBertForSequenceClassification.from_pretrained(tmp_path, id2label=labels)
        assert opened.config == config.model_copy(update={"id2label": labels, "problem_type": None})
        assert opened.classifier.weight.shape == (len(labels), 32)
        assert not opened.classifier.weight[0].equal(model.classifier.weight[0])
        encoder = {n: t for n, t in model.state_dict().items() if n.startswith("transformer.")}
        assert_equal(
            opened.transformer, {n.removeprefix("transformer."): t for n, t in encoder.items()}
        )


def test_fields_of_the_configuration_can_be_changed_and_are_checked(
    mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    mlm.save_pretrained(tmp_path)
    opened = SqueezeBertForMaskedLM.from_pretrained(tmp_path, hidden_dropout_prob=0.5)
    assert opened.config == mlm.config.model_copy(update={"hidden_dropout_prob": 0.5})
    assert_equal(opened, mlm.state_dict())
    for wrong in ({"dropout": 0.5}, {"hidden_dropout_prob": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SqueezeBertForMaskedLM.from_pretrained(tmp_path, **wrong)


@pytest.mark.parametrize(
    "head", ["SqueezeBertModel", "SqueezeBertForMaskedLM", "SqueezeBertForPreTraining"]
)
def test_a_classifier_starts_from_any_encoder_but_only_where_labels_are_given(
    head: str, tiny: Config, scramble: Scramble, tmp_path: Path
) -> None:
    model = scramble(getattr(sqzb.model, head)(tiny()))
    model.save_pretrained(tmp_path)
    opened = SqueezeBertForSequenceClassification.from_pretrained(
        tmp_path, id2label={0: "no", 1: "yes"}
    )
    encoder: Any = getattr(model, "transformer", model)
    assert_equal(opened.transformer, encoder.state_dict())
    with pytest.raises(UserError, match=r"missing classifier\.weight.*missing classifier\.bias"):
        SqueezeBertForSequenceClassification.from_pretrained(tmp_path)


# What is read


def test_half_precision_of_transformers_is_read_into_fp32(
    tiny: Config, scramble: Scramble, tmp_path: Path
) -> None:
    theirs = transformers.SqueezeBertForMaskedLM(
        transformers.SqueezeBertConfig.from_dict(tiny().to_hf("SqueezeBertForMaskedLM"))
    )
    scramble(theirs).half().save_pretrained(tmp_path)
    state = {
        name: tensor for name, tensor in theirs.state_dict().items() if ".decoder." not in name
    }
    assert next(iter(state.values())).dtype == torch.float16
    assert_equal(SqueezeBertForMaskedLM.from_pretrained(tmp_path), state)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_an_old_published_file_is_read(
    zipped: bool, prefix: str, mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    """fp16, position numbers and copies of the tied weights, in both formats that torch has
    written.
    """
    state = {name: tensor.half() for name, tensor in mlm.state_dict().items()}
    words = state["transformer.embeddings.word_embeddings.weight"]
    old = {name.replace("transformer.", prefix, 1): tensor for name, tensor in state.items()} | {
        f"{prefix}embeddings.position_ids": torch.arange(24)[None],
        "cls.predictions.decoder.weight": words.clone(),
        "cls.predictions.decoder.bias": state["cls.predictions.bias"].clone(),
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "cls.seq_relationship.bias": torch.ones(2),
    }
    torch.save(
        old,
        write_folder(tmp_path, mlm.config) / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    assert_equal(SqueezeBertForMaskedLM.from_pretrained(tmp_path), state)
    encoder = {
        n.removeprefix("transformer."): t for n, t in state.items() if n.startswith("transformer.")
    }
    assert_equal(SqueezeBertModel.from_pretrained(tmp_path), encoder)


def test_safetensors_are_preferred_to_an_old_file(
    mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    mlm.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert_equal(SqueezeBertForMaskedLM.from_pretrained(str(tmp_path)), mlm.state_dict())


# What is refused


@settings(max_examples=scaled(12))
@given(data=st.data())
def test_every_missing_unexpected_or_misshapen_tensor_is_listed(
    data: st.DataObject, mlm: SqueezeBertForMaskedLM
) -> None:
    good = mlm.state_dict()
    wrong = data.draw(st.lists(st.sampled_from(sorted(good)), unique=True, min_size=1, max_size=4))
    missing = wrong[: data.draw(st.integers(0, len(wrong)))]
    misshapen = [name for name in wrong if name not in missing]
    unexpected = data.draw(
        st.lists(
            st.sampled_from(
                [
                    "encoder.layers.2.output.conv1d.bias",
                    "embeddings.extra",
                    "lm_head.weight",
                    "cls.predictions.more",
                ]
            ),
            unique=True,
        )
    )
    stored = {name: tensor for name, tensor in good.items() if name not in missing}
    stored |= {name: torch.zeros(*stored[name].shape, 2) for name in misshapen}
    stored |= {name: torch.zeros(1) for name in unexpected}
    with tempfile.TemporaryDirectory() as folder:
        save_file(stored, write_folder(Path(folder), mlm.config) / "model.safetensors")
        with pytest.raises(UserError) as refused:
            SqueezeBertForMaskedLM.from_pretrained(folder)
    told = str(refused.value)
    assert folder in told
    listed = re.split(r"describes it: |; |\. Is this", told)
    found = {
        kind: [text for text in listed if text.startswith(f"{kind} ")]
        for kind in ("missing", "unexpected")
    }
    assert sorted(found["missing"]) == sorted(f"missing {name}" for name in missing)
    assert sorted(found["unexpected"]) == sorted(f"unexpected {name}" for name in unexpected)
    for name in misshapen:
        shape = tuple(good[name].shape)
        assert f"{name} has shape {(*shape, 2)} instead of {shape}" in listed
    assert len(listed) == 2 + len(wrong) + len(unexpected)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("SqueezeBertForPreTraining", "sop.bias"),
        ("SqueezeBertForSequenceClassification", "classifier.bias"),
    ],
)
def test_half_a_head_is_refused(head: str, part: str, tiny: Config, tmp_path: Path) -> None:
    model = getattr(sqzb.model, head)(tiny())
    model.save_pretrained(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        save_file({name: tensor for name, tensor in load_file(path).items() if name != part}, path)
    with pytest.raises(UserError, match=f"missing {part}"):
        type(model).from_pretrained(tmp_path)


class Trap:
    """A pickle that writes a file where it is opened without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "caught")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("written_by", ["torch, zipped", "torch, legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    written_by: str, mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    caught = tmp_path / "caught"
    path = write_folder(tmp_path / "model", mlm.config) / "pytorch_model.bin"
    content = dict(mlm.state_dict()) | {"trap": Trap(caught)}
    if written_by == "pickle":
        path.write_bytes(pickle.dumps({"trap": Trap(caught)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written_by == "torch, zipped")
    with pytest.raises(UserError, match=r"could run code.*model\.safetensors"):
        SqueezeBertForMaskedLM.from_pretrained(path.parent)
    assert not caught.exists()
    if written_by != "pickle":
        torch.load(path, weights_only=False)
        assert caught.exists()  # it would have


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "old.bin"])
@settings(max_examples=scaled(30))
@given(data=st.data())
def test_damaged_weights_are_an_error_of_the_users(data: st.DataObject, name: str) -> None:
    good, stream = {"embeddings.a": torch.ones(3, 3), "b": torch.ones(2)}, io.BytesIO()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if name == "model.safetensors":
            save_file(good, folder / name)
            content = bytearray((folder / name).read_bytes())
        else:
            torch.save(good, stream, _use_new_zipfile_serialization=name == "pytorch_model.bin")
            content, name = bytearray(stream.getvalue()), "pytorch_model.bin"
        place = st.integers(0, min(len(content), 600) - 1)
        for index, byte in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=3)):
            content[index] = byte
        (folder / name).write_bytes(content[: data.draw(st.none() | place)])
        try:
            read = sqzb.model.checkpoint.read_tensors(folder)
        except UserError as refused:
            assert text in str(refused)
        else:
            assert all(
                isinstance(key, str) and isinstance(value, Tensor) for key, value in read.items()
            )


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}, torch.ones(1)])
def test_an_old_file_that_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="state dict"):
        sqzb.model.checkpoint.read_tensors(tmp_path)


def test_a_folder_without_config_or_weights_says_so(
    mlm: SqueezeBertForMaskedLM, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        SqueezeBertForMaskedLM.from_pretrained(tmp_path)
    write_folder(tmp_path, mlm.config)
    with pytest.raises(UserError, match=r"model\.safetensors.*pytorch_model\.bin"):
        SqueezeBertForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model_type": "bert"}',
        b'{"model_type": "squeezebert", "q_groups": 5}',
        b"[" * 200_000,
        b'{"model_type": "squeezebert", "vocab_size": 1099511627776}',
        b'{"model_type": "squeezebert", "num_hidden_layers": 1099511627776}',
        b'{"model_type": "squeezebert", "num_labels": 1099511627776}',
    ],
)
def test_a_broken_or_foreign_config_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "config.json"))):
        SqueezeBertModel.from_pretrained(tmp_path)


def test_a_config_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json"):
        SqueezeBertModel.from_pretrained(tmp_path)
