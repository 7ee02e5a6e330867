"""The contestants of a race of latency: saved models and exports, each in one form or in two.

A BERT has two forms: that of transformers and the general exporters, and sqzb's own. BERT is a
SqueezeBERT with one group everywhere, so sqzb's modules and graphs give it the same care.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from torch import Tensor

from sqzb.bench.cells import GENERAL, SQZB, Form
from sqzb.bench.general import AUTO, count_flops, inputs_of
from sqzb.errors import UserError
from sqzb.export.folder import ExportRecord, is_export, read_record
from sqzb.export.heads import CLASSIFIER, ENCODER, INPUTS, MLM, TOKENS, VECTORS, Head
from sqzb.finetuning.finetuned import longest_input
from sqzb.model.checkpoint import read_config
from sqzb.model.config import SqueezeBertConfig, architectures, model_type
from sqzb.model.costs import costs, total
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.heads import (
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from sqzb.model.layers import ENCODER_LAYER_NORM_EPS, GroupedLinear
from sqzb.model.open import ModelFolder, model_folder, open_classifier, open_encoder
from sqzb.model.transformers_classifier import quiet_transformers
from sqzb.tokenizer import load_tokenizer, save_tokenizer

BERT_BASE = "bert-base"
# Fields in which the random BERT differs from BertConfig's defaults, which are BERT-base's.
BERT_SIZES: dict[str, Any] = {}
ACTIVATIONS = ("gelu", "gelu_new", "relu")  # of SqueezeBertConfig
# Parts of BERT's names of tensors, and SqueezeBERT's; an earlier line wins.
NAMES = {
    "bert.": "transformer.",
    "encoder.layer.": "encoder.layers.",
    "attention.self.": "attention.",
    "attention.output.dense.": "post_attention.conv1d.",
    "attention.output.LayerNorm.": "post_attention.layernorm.",
    "intermediate.dense.": "intermediate.conv1d.",
    "output.dense.": "output.conv1d.",
    "output.LayerNorm.": "output.layernorm.",
}
CLASSES: dict[Head, Any] = {
    CLASSIFIER: SqueezeBertForSequenceClassification,
    TOKENS: SqueezeBertForTokenClassification,
    ENCODER: SqueezeBertModel,
}
TITLES: dict[Form, str] = {GENERAL: "as usual", SQZB: "same care"}


class Contestant(NamedTuple):
    """A model in a form.

    name: of the model.
    title: its name with the form, where the model has two.
    folder: of the saved model, or of the export.
    inputs: names of the model's inputs.
    positions: tokens of the longest input that the model can read.
    max_length: tokens to which texts are cut.
    flops: floating-point operations of a forward on (batch, length).
    id2label: names of the classifier's outputs; of no meaning without one.
    weights: origin of the weights.
    is_trained: whether no weights are random.
    record: of an export; None for a saved model.
    """

    name: str
    title: str
    form: Form
    folder: Path
    head: Head
    inputs: tuple[str, ...]
    tokenizer: Tokenizer
    positions: int
    max_length: int
    flops: Callable[[int, int], int]
    id2label: Mapping[int, str]
    weights: str
    is_trained: bool = True
    record: ExportRecord | None = None


def open_own(source: str, work: Path) -> list[Contestant]:
    """Open the model that the command is about: a run, a saved folder, a Hub id, or an export.

    work: a folder for files that live as long as the race.

    Raises:
        UserError: there is no such model, or it cannot be opened.
    """
    if is_export(source):
        return [_exported(Path(source), _short(source))]
    folder = model_folder(source)
    return _forms(folder, _short(source), _head(folder), source, work / "own")


def open_other(source: str, own: Contestant, work: Path) -> list[Contestant]:
    """Open the model to compare with, with the same head.

    source: a run, a saved folder, a Hub id, or BERT_BASE for random weights of its sizes. A model
    without the head gets a new one with random weights.
    own: the model that the command is about, whose tokenizer BERT_BASE takes.

    Raises:
        UserError: there is no such model, or it cannot be opened.
    """
    head = ENCODER if own.head == VECTORS else own.head
    if head == MLM:
        raise UserError(
            f"{own.folder} gives the logits of all tokens, which --against does not compare. "
            "Export it with --head encoder, or give the run itself."
        )
    name = _short(source)
    if source == BERT_BASE:
        folder = ModelFolder(work / BERT_BASE)
        _write_random_bert(folder.path, own._replace(head=head))
        return _untrained(_forms(folder, name, head, "random", work / "other"))
    if is_export(source):
        raise UserError(f"--against {source} is an export. Give the model that it was made from.")
    folder = model_folder(source)
    if head not in (ENCODER, _head(folder)):
        id2label = dict(own.id2label)
        opened = open_classifier(folder, tokens=head == TOKENS, id2label=id2label)
        opened.model.save_pretrained(work / "new-head", opened.tokenizer)
        weights = f"{source}, with a random head"
        return _untrained(
            _forms(ModelFolder(work / "new-head"), name, head, weights, work / "other")
        )
    return _forms(folder, name, head, source, work / "other")


def _untrained(contestants: list[Contestant]) -> list[Contestant]:
    return [contestant._replace(is_trained=False) for contestant in contestants]


def _short(source: str) -> str:
    """Return a model's name for the tables: the last part of its path or Hub id."""
    path = Path(source.partition("@")[0])
    return path.parent.name if path.name == "final" and path.parent.name else path.name or source


def _head(folder: ModelFolder) -> Head:
    """Return the classifier that a folder has, or the bare encoder."""
    if folder.is_squeezebert and not folder.has_classifier:
        return ENCODER
    names = architectures(folder.path)
    if any(name.endswith("ForTokenClassification") for name in names):
        return TOKENS
    is_classifier = any(name.endswith("ForSequenceClassification") for name in names)
    return CLASSIFIER if is_classifier or folder.is_squeezebert else ENCODER


def _exported(folder: Path, name: str) -> Contestant:
    record = read_record(folder)
    config = read_config(folder)
    return Contestant(
        name=name,
        title=name,
        form=SQZB,
        folder=folder,
        head=record.head,
        inputs=INPUTS,
        tokenizer=load_tokenizer(folder),
        positions=config.max_position_embeddings,
        max_length=record.max_length,
        flops=cache(partial(_squeezebert_flops, config, record.head)),
        id2label=config.id2label,
        weights=f"export {folder}",
        record=record,
    )


def _forms(
    folder: ModelFolder, name: str, head: Head, weights: str, work: Path
) -> list[Contestant]:
    """Open a saved model in each form that it has; this reads its weights once, as a check."""
    opened: Any = open_encoder(folder) if head == ENCODER else open_classifier(folder)
    positions = opened.model.config.max_position_embeddings
    contestant = Contestant(
        name=name,
        title=name,
        form=SQZB,
        folder=folder.path,
        head=head,
        inputs=INPUTS,
        tokenizer=opened.tokenizer,
        positions=positions,
        max_length=longest_input(folder, positions),
        flops=cache(partial(_folder_flops, folder.path, head)),
        id2label={} if head == ENCODER else opened.model.config.id2label,
        weights=weights,
    )
    if folder.is_squeezebert:
        return [contestant]
    model = opened.model if head == ENCODER else opened.model.model
    contestant = contestant._replace(form=GENERAL, inputs=inputs_of(model))
    if not _is_convertible(folder.path, model):
        return [contestant]
    as_squeezebert(model, head).save_pretrained(work, opened.tokenizer)
    return [
        contestant._replace(title=f"{name}, {TITLES[GENERAL]}"),
        contestant._replace(
            title=f"{name}, {TITLES[SQZB]}",
            form=SQZB,
            folder=work,
            inputs=INPUTS,
            flops=cache(partial(_folder_flops, work, head)),
        ),
    ]


def _folder_flops(folder: Path, head: Head, batch: int, length: int) -> int:
    if ModelFolder(folder).is_squeezebert:
        return _squeezebert_flops(read_config(folder), head, batch, length)
    return count_flops(folder, head, batch, length)


def _squeezebert_flops(config: SqueezeBertConfig, head: Head, batch: int, length: int) -> int:
    labels = config.num_labels if head == CLASSIFIER else 0
    tags = config.num_labels if head == TOKENS else 0
    predictions = length if head == MLM else 0
    return total(costs(config, batch, length, predictions, labels, tags=tags)).flops


# BERT


def _write_random_bert(folder: Path, own: Contestant) -> None:
    """Write a BERT of BERT-base's sizes with random weights, and with the head of `own`.

    Its vocabulary has all tokens of the tokenizer of `own`.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--against {BERT_BASE} needs transformers ({error}): pip install 'sqzb[hf]'"
        ) from error
    with quiet_transformers(folder) as library:
        config = library.BertConfig(**BERT_SIZES)
        config.vocab_size = max(config.vocab_size, own.tokenizer.get_vocab_size())
        if own.id2label:
            config.id2label = dict(own.id2label)
        getattr(library, AUTO[own.head]).from_config(config).save_pretrained(folder)
    save_tokenizer(own.tokenizer, folder, config.max_position_embeddings)


def _is_convertible(folder: Path, model: Any) -> bool:
    """Return whether sqzb's modules compute the same as this model of transformers."""
    config = model.config
    return (
        model_type(folder) == "bert"
        and config.hidden_act in ACTIVATIONS
        and config.layer_norm_eps == ENCODER_LAYER_NORM_EPS
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not config.is_decoder
    )


def as_squeezebert(model: Any, head: Head) -> Any:
    """Return a BERT of transformers as a SqueezeBERT with one group everywhere."""
    theirs = model.config
    groups = [name for name in SqueezeBertConfig.model_fields if name.endswith("_groups")]
    fields: dict[str, Any] = dict.fromkeys(groups, 1)
    for name in set(SqueezeBertConfig.model_fields) - set(groups):
        if getattr(theirs, name, None) is not None:
            fields[name] = getattr(theirs, name)
    converted = CLASSES[head](SqueezeBertConfig(**fields)).eval()
    grouped = [name for name, part in converted.named_modules() if isinstance(part, GroupedLinear)]
    weights = {f"{name}.weight" for name in grouped}

    own = converted.state_dict()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        for before, after in NAMES.items():
            name = name.replace(before, after)
        tensors[name] = tensor[..., None] if name in weights else tensor
    # A tagger of transformers has no pooler, which no tag needs.
    for name in own:
        if "pooler" in name:
            tensors.setdefault(name, own[name])
    converted.load_state_dict(tensors)
    return converted
