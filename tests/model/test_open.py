"""The door to models: headers answer questions about a folder, and its weights are read once."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sqzb import load
from sqzb.corpus.store import Corpus
from sqzb.embed import load_encoder
from sqzb.errors import UserError
from sqzb.evaluate import evaluate_corpus, evaluate_task
from sqzb.fill_mask import fill_mask
from sqzb.finetuning.data import open_data
from sqzb.finetuning.job import finetune
from sqzb.glue.tasks import TASKS
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
    checkpoint,
)
from sqzb.model import open as door
from sqzb.model.open import (
    model_folder,
    open_classifier,
    open_for_pretraining,
    open_masked_lm,
    open_squeezebert_mlm,
)
from sqzb.model.transformers_classifier import TransformersClassifier
from sqzb.pretraining.start import build_model
from sqzb.recipe import FinetuneRecipe, PretrainRecipe
from sqzb.tokenizer import load_tokenizer, save_tokenizer
from stopped_runs import write_task

ROOT = Path(__file__).parents[2]
WEIGHTS = "model.safetensors"
LABELS = dict(enumerate(TASKS["mrpc"].labels))
# Whether the class has an MLM head, a SOP head, a classifier.
HEADS: dict[type[Any], tuple[bool, bool, bool]] = {
    SqueezeBertModel: (False, False, False),
    SqueezeBertForMaskedLM: (True, False, False),
    SqueezeBertForPreTraining: (True, True, False),
    SqueezeBertForSequenceClassification: (False, False, True),
    SqueezeBertForTokenClassification: (False, False, True),
}
Save = Callable[..., Path]


@pytest.fixture
def save(vocabulary: Path, tiny_config: SqueezeBertConfig, tmp_path: Path) -> Save:
    """Write a SqueezeBERT of a class with a tokenizer, by default of as many tokens."""

    def write(kind: type[Any] = SqueezeBertForPreTraining, **changes: Any) -> Path:
        torch.manual_seed(0)
        model = kind(tiny_config.model_copy(update={"id2label": LABELS} | changes))
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder, load_tokenizer(vocabulary))
        return folder

    return write


@pytest.fixture
def bert(vocabulary: Path, tmp_path: Path) -> Save:
    """Write a BERT of transformers, with the vocabulary of `save`."""
    transformers: Any = pytest.importorskip("transformers")

    def write(head: str) -> Path:
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 16,
        }
        config = transformers.BertConfig(vocab_size=150, **sizes, id2label=LABELS)
        folder = tmp_path / head
        getattr(transformers, f"Bert{head}")(config).save_pretrained(folder)
        save_tokenizer(load_tokenizer(vocabulary), folder, 32)
        return folder

    return write


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


class HeaderAlone:
    """safe_open without a way to a tensor."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._opened: Any = safe_open(*arguments, **more)

    def __enter__(self) -> "HeaderAlone":
        self._file = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def keys(self) -> Any:
        return self._file.keys()

    def get_slice(self, name: str) -> Any:
        return _ShapeAlone(self._file.get_slice(name))


class _ShapeAlone:
    def __init__(self, part: Any) -> None:
        self.get_shape, self.get_dtype = part.get_shape, part.get_dtype


@pytest.fixture
def no_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor can be read."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a tensor is read")

    monkeypatch.setattr(checkpoint, "load_file", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(checkpoint, "safe_open", HeaderAlone)


@pytest.mark.usefixtures("no_tensors")
@pytest.mark.parametrize("kind", HEADS)
def test_the_header_says_what_a_folder_holds(
    kind: type[Any], save: Save, tiny_config: SqueezeBertConfig
) -> None:
    model: nn.Module = kind(tiny_config)
    folder = model_folder(save(kind))
    assert folder.is_squeezebert
    assert (folder.has_mlm_head, folder.has_sop_head, folder.has_classifier) == HEADS[kind]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in folder.tensors.items()} == shapes
    assert {tensor.dtype for tensor in folder.tensors.values()} == {"float32"}
    assert folder.parameter_count == sum(parameter.numel() for parameter in model.parameters())


def test_an_old_file_has_the_same_answers(save: Save) -> None:
    folder = save()
    stored = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(stored, folder / WEIGHTS)
    new = model_folder(folder).tensors
    assert {tensor.dtype for name, tensor in new.items() if not name.startswith("sop.")} == {
        "float16"
    }
    torch.save(stored, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert model_folder(folder).tensors == new


def test_the_leftover_of_a_head_is_no_head(save: Save) -> None:
    folder = save(SqueezeBertModel)
    change(
        folder, lambda tensors: tensors.update({"cls.seq_relationship.weight": torch.ones(2, 16)})
    )
    assert not model_folder(folder).has_mlm_head


@pytest.mark.usefixtures("no_tensors")
def test_another_models_heads_are_not_looked_for(bert: Save) -> None:
    folder = model_folder(bert("ForMaskedLM"))
    assert not folder.is_squeezebert
    assert not (folder.has_mlm_head or folder.has_sop_head or folder.has_classifier)


@pytest.mark.parametrize("content", [b"", b"torn", b"\xff" * 20])
def test_a_damaged_header_is_an_error_of_the_users(content: bytes, save: Save) -> None:
    folder = save()
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read .*Save or download them again"):
        model_folder(folder).has_mlm_head  # noqa: B018


# Once


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Path]]:
    """By function, the files or folders that it is called with from now on."""
    found: dict[str, list[Path]] = {"load_file": [], "local_folder": [], "load_tokenizer": []}

    def count(module: Any, name: str) -> None:
        whole = getattr(module, name)

        def counted(path: Any, *more: Any) -> Any:
            found[name].append(Path(path))
            return whole(path, *more)

        monkeypatch.setattr(module, name, counted)

    count(checkpoint, "load_file")
    count(checkpoint, "local_folder")
    count(door, "local_folder")
    count(door, "load_tokenizer")
    return found


def finetuned(folder: Path, glue: Path, corpus: Corpus) -> None:
    settings = {"task": "mrpc", "epochs": 1, "batch": 8, "max_length": 16, "glue_dir": str(glue)}
    recipe = FinetuneRecipe.model_validate(
        settings | {"model": str(folder), "output": str(glue / "run")}
    )
    finetune(recipe, open_data(recipe))


def evaluated(folder: Path, glue: Path, corpus: Corpus) -> None:
    evaluate_task(
        str(folder), open_data(FinetuneRecipe(task="mrpc", glue_dir=str(glue))), "validation"
    )


def started_from(folder: Path, glue: Path, corpus: Corpus) -> None:
    build_model(
        PretrainRecipe(corpus=str(corpus.folder), start_from=str(folder), sequence_length=16),
        corpus,
    )


PRETRAINED, CLASSIFIER = SqueezeBertForPreTraining, SqueezeBertForSequenceClassification
COMMANDS: dict[str, tuple[type[Any], Callable[[Path, Path, Corpus], Any]]] = {
    "finetune": (PRETRAINED, finetuned),
    "eval a classifier": (CLASSIFIER, evaluated),
    "eval a pretrained model": (
        PRETRAINED,
        lambda folder, _, corpus: evaluate_corpus(str(folder), corpus.folder),
    ),
    "predict": (
        CLASSIFIER,
        lambda folder, _, __: load(str(folder)).predict([("water", "river"), "stone"]),
    ),
    "fill-mask": (PRETRAINED, lambda folder, _, __: fill_mask(str(folder), "the [MASK]", 2)),
    "embed": (PRETRAINED, lambda folder, _, __: load_encoder(str(folder)).embed(["water"])),
    "pretrain": (PRETRAINED, started_from),
    "a teacher": (PRETRAINED, lambda folder, _, __: open_masked_lm(str(folder))),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_opens_its_model_once(
    command: str, save: Save, corpus: Corpus, tmp_path: Path, calls: dict[str, list[Path]]
) -> None:
    kind, run = COMMANDS[command]
    write_task(tmp_path, 16)
    folder = save(kind)
    run(folder, tmp_path, corpus)
    heads = [folder / "sop_head.safetensors"] if kind is PRETRAINED else []
    assert [path for path in calls["load_file"] if path.parent == folder] == [
        folder / WEIGHTS,
        *heads,
    ]
    assert calls["local_folder"] == calls["load_tokenizer"] == [folder]


def test_another_model_and_its_tokenizer_are_opened_once(
    bert: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert("ForSequenceClassification")
    transformers: Any = pytest.importorskip("transformers")
    opened: list[str] = []
    for name in ("AutoTokenizer", "AutoModelForSequenceClassification"):
        auto = getattr(transformers, name)

        def counted(
            *arguments: Any, name: str = name, whole: Any = auto.from_pretrained, **more: Any
        ) -> Any:
            opened.append(name)
            return whole(*arguments, **more)

        monkeypatch.setattr(auto, "from_pretrained", counted)
    load(str(folder)).predict(["water"])
    assert sorted(opened) == ["AutoModelForSequenceClassification", "AutoTokenizer"]


def test_what_is_saved_is_the_tokenizer_as_it_was_opened(bert: Save, tmp_path: Path) -> None:
    """Whatever has been set of the copy that is given out."""
    folder = bert("ForSequenceClassification")
    transformers: Any = pytest.importorskip("transformers")
    opened = open_classifier(folder)
    assert isinstance(opened.model, TransformersClassifier)
    padding = opened.tokenizer.padding
    assert padding is not None and padding["pad_id"] == 0 and opened.tokenizer.truncation is None
    opened.tokenizer.enable_truncation(3)
    opened.model.save_pretrained(tmp_path / "again", opened.tokenizer)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


# What is refused


OPENERS: dict[str, tuple[type[Any], Callable[[Path], Any]]] = {
    "classifier": (CLASSIFIER, open_classifier),
    "new head": (PRETRAINED, lambda folder: open_classifier(folder, id2label=LABELS)),
    "fill-mask": (PRETRAINED, open_squeezebert_mlm),
    "teacher": (PRETRAINED, open_masked_lm),
    "pretraining": (PRETRAINED, open_for_pretraining),
}


@pytest.mark.parametrize("what", OPENERS)
def test_a_vocabulary_over_the_models_is_refused(what: str, save: Save) -> None:
    kind, opener = OPENERS[what]
    with pytest.raises(UserError, match=r"\(150 tokens\) does not fit its model \(149\)"):
        opener(save(kind, vocab_size=149))
    assert opener(save(kind, vocab_size=151)).tokenizer.get_vocab_size() == 150


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", OPENERS)
def test_numbers_that_are_not_finite_are_refused(what: str, value: float, save: Save) -> None:
    kind, opener = OPENERS[what]
    folder = save(kind)
    name = "transformer.embeddings.word_embeddings.weight"
    change(folder, lambda tensors: tensors[name][3].fill_(value))
    with pytest.raises(UserError, match=r"non-finite values in \S*word_embeddings\.weight"):
        opener(folder)


def test_a_models_head_must_be_there(save: Save, bert: Save) -> None:
    with pytest.raises(UserError, match="has no classifier"):
        open_classifier(save(PRETRAINED))
    for opener in (open_squeezebert_mlm, open_masked_lm):
        with pytest.raises(UserError, match="has no head for masked tokens"):
            opener(save(CLASSIFIER))
    with pytest.raises(
        UserError, match=r"(would be random|cls\.predictions\))\. Give a model with its MLM head"
    ):
        open_masked_lm(bert("Model"))


def test_what_asks_a_squeezebert_refuses_another_model(bert: Save) -> None:
    folder = bert("ForMaskedLM")
    for opener in (open_squeezebert_mlm, open_for_pretraining):
        with pytest.raises(UserError, match="model_type is 'bert'"):
            opener(folder)


def test_a_model_to_pretrain_needs_no_tokenizer(save: Save) -> None:
    folder = save()
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink()
    assert open_for_pretraining(folder).tokenizer is None
    with pytest.raises(UserError, match="has no tokenizer"):
        open_masked_lm(folder)


def test_a_folder_that_is_no_model_says_what_it_lacks(save: Save) -> None:
    folder = save()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 16}))
    assert model_folder(folder).is_squeezebert
    with pytest.raises(UserError, match="does not describe a SqueezeBERT"):
        open_squeezebert_mlm(folder)


# The only door


def names_in(path: Path) -> set[str]:
    """All names and attributes in a module's code."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_no_other_room_opens_a_model() -> None:
    """But training/checkpoints.py, which reads the weights of its own run into the model that
    is there, and the benchmark of transformers' own classes.
    """
    own_ways = (("training", "checkpoints.py"), ("bench", "general.py"))
    forbidden = {"from_pretrained", "from_folder", "read_tensors", "read_header", "safe_open"}
    tokenizers = ("corpus", "tokenizer.py", "export", "bench")  # an export is no model folder
    for path in sorted((ROOT / "sqzb").rglob("*.py")):
        room = path.relative_to(ROOT / "sqzb").parts
        if room[0] == "model" or room in own_ways:
            continue
        names = names_in(path)
        assert not forbidden & names, path
        assert not any(name.startswith("AutoModel") for name in names), path
        assert "load_tokenizer" not in names or room[0] in tokenizers, path


def test_a_classifier_of_tokens_opens_as_it_was_saved(save: Save) -> None:
    folder = save(SqueezeBertForTokenClassification)
    opened = open_classifier(folder)
    assert opened.folder.classifies_tokens
    assert isinstance(opened.model, SqueezeBertForTokenClassification)
    assert open_classifier(folder, id2label={0: "a"}).folder == opened.folder
    assert not model_folder(save(CLASSIFIER)).classifies_tokens


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_new_head_is_of_the_kind_that_is_asked_for(save: Save, from_scratch: bool) -> None:
    folder = save(PRETRAINED)
    words = open_classifier(folder, from_scratch, tokens=True, id2label={0: "O", 1: "B-X"})
    assert isinstance(words.model, SqueezeBertForTokenClassification)
    several = "multi_label_classification"
    texts = open_classifier(folder, from_scratch, id2label={0: "a"}, problem_type=several)
    assert isinstance(texts.model, SqueezeBertForSequenceClassification)
    assert texts.model.config.problem_type == "multi_label_classification"


def test_a_new_head_forgets_what_was_said_of_the_old_one(save: Save) -> None:
    folder = save(
        CLASSIFIER,
        problem_type="multi_label_classification",
        thresholds=[0.2, 0.3],
        calibration_temperature=2.0,
    )
    assert open_classifier(folder).model.config.thresholds == [0.2, 0.3]
    config = open_classifier(folder, id2label=LABELS).model.config
    assert (config.problem_type, config.thresholds, config.calibration_temperature) == (None,) * 3
