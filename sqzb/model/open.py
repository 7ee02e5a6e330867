"""The opening of models: from a local folder or a Hub id to a model with its tokenizer.

`model_type` in config.json tells a SqueezeBERT from a model that transformers opens; transformers
is imported only for the latter. The weights are read once, after every check that the small files
allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from sqzb.errors import UserError
from sqzb.hub import local_folder
from sqzb.model.checkpoint import (
    CLASSIFIER,
    LEFTOVERS,
    MLM,
    SOP,
    StoredTensor,
    check_shards,
    enough_memory,
    read_config,
    read_header,
    refuse_not_finite,
)
from sqzb.model.config import EXPORT, MODEL_TYPE, OF_LABELS, architectures, model_type
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.heads import (
    SqueezeBertForMaskedLM,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from sqzb.model.scale import take_up_scale
from sqzb.model.transformers_classifier import (
    LOCAL,
    TransformersClassifier,
    no_classifier,
    quiet_transformers,
    read_sizes,
    refuse_types,
)
from sqzb.tokenizer import load_tokenizer

SqueezeBertClassifier = SqueezeBertForSequenceClassification | SqueezeBertForTokenClassification
Classifier = SqueezeBertClassifier | TransformersClassifier
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class ModelFolder:
    """A local folder with a saved model.

    Its properties are read from config.json and the header of the weights. The heads of other
    models have names of their own, so the properties about heads are False for these.
    """

    path: Path

    @cached_property
    def is_squeezebert(self) -> bool:
        """Whether the model is a SqueezeBERT.

        A folder without a `model_type` counts as one, so that opening it reports the missing key.
        """
        return model_type(self.path) in (MODEL_TYPE, None)

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Type and shape of every stored tensor, by name.

        Raises:
            UserError: there are no weights, or they cannot be read.
        """
        return read_header(self.path)

    @property
    def classifies_tokens(self) -> bool:
        """Whether the model was saved as a classifier of tokens."""
        return any(name.endswith("ForTokenClassification") for name in architectures(self.path))

    @property
    def parameter_count(self) -> int:
        """Number of elements in all stored tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def has_mlm_head(self) -> bool:
        """Whether the folder has a SqueezeBERT's MLM head."""
        return self._has(MLM)

    @property
    def has_sop_head(self) -> bool:
        """Whether the folder has a SqueezeBERT's SOP head."""
        return self._has(SOP)

    @property
    def has_classifier(self) -> bool:
        """Whether the folder has a SqueezeBERT's classifier."""
        return self._has(CLASSIFIER)

    def _has(self, head: str) -> bool:
        if not self.is_squeezebert:
            return False
        return any(name.startswith(head) and name not in LEFTOVERS for name in self.tensors)


Source = str | Path | ModelFolder


@dataclass(frozen=True)
class Opened(Generic[Model]):
    """A model with its tokenizer, and the folder that they were read from."""

    folder: ModelFolder
    model: Model
    tokenizer: Tokenizer


@dataclass(frozen=True)
class OpenedForPretraining:
    """A model with both heads of pretraining; its folder may lack a tokenizer."""

    folder: ModelFolder
    model: SqueezeBertForPreTraining
    tokenizer: Tokenizer | None


def model_folder(source: Source) -> ModelFolder:
    """Return the folder of a path, a run or a Hub id, which is downloaded if necessary.

    Raises:
        UserError: there is no such folder, or it is an export.
    """
    if isinstance(source, ModelFolder):
        return source
    path = local_folder(source)
    if (path / EXPORT).is_file():
        raise UserError(
            f"{path} is an export, which has no weights for torch. Give the run that it was made "
            "from. The commands predict, eval, embed and fill-mask read exports, and in Python "
            "sqzb.load."
        )
    return ModelFolder(path)


def open_classifier(
    source: Source, from_scratch: bool = False, tokens: bool = False, **changes: Any
) -> Opened[Classifier]:
    """Open a classifier, of texts or of tokens as it was saved.

    from_scratch: take only the sizes, with random weights.
    tokens: whether a new head classifies tokens.
    changes: `id2label` makes a new head for these labels, of the given `problem_type`;
    `hidden_dropout_prob` and `attention_probs_dropout_prob` replace the model's dropout.

    A checkpoint of a regression gives numbers in the labels' unit, as a finished run does. A
    SqueezeBERT's tokenizer does not pad; that of another model pads with the model's own token.

    Raises:
        UserError: the model or its tokenizer cannot be opened, they do not fit each other, weights
            are not finite, or the model has no head and `changes` makes no new one.
    """
    folder = model_folder(source)
    if "id2label" not in changes:
        tokens = folder.classifies_tokens
    if folder.is_squeezebert:
        return _open_squeezebert_classifier(folder, from_scratch, tokens, changes)
    if from_scratch:
        model = TransformersClassifier.from_sizes(folder.path, tokens, **changes)
    else:
        model = TransformersClassifier.from_folder(folder.path, tokens, **changes)
    take_up_scale(model)
    tokenizer = model.tokenizer()
    _check(folder, model, tokenizer)
    return Opened[Classifier](folder, model, tokenizer)


def _open_squeezebert_classifier(
    folder: ModelFolder, from_scratch: bool, tokens: bool, changes: dict[str, Any]
) -> Opened[Classifier]:
    if not (from_scratch or "id2label" in changes or folder.has_classifier):
        raise no_classifier(folder.path)
    tokenizer = load_tokenizer(folder.path)
    cls: type[SqueezeBertClassifier] = SqueezeBertForSequenceClassification
    if tokens:
        cls = SqueezeBertForTokenClassification
    if from_scratch:
        with enough_memory(folder.path):
            model = cls(read_config(folder.path).model_copy(update=OF_LABELS | changes))
    else:
        model = cls.from_folder(folder.path, **changes)
    take_up_scale(model)
    _check(folder, model, tokenizer)
    return Opened[Classifier](folder, model, tokenizer)


def open_squeezebert_mlm(source: Source) -> Opened[SqueezeBertForMaskedLM]:
    """Open a SqueezeBERT with its MLM head.

    Raises:
        UserError: the model or its tokenizer cannot be opened, they do not fit each other, weights
            are not finite, or the folder holds another model or no MLM head.
    """
    folder = model_folder(source)
    read_config(folder.path)  # refuses another model, before its head is missed
    if not folder.has_mlm_head:
        raise UserError(
            f"The model in {folder.path} has no head for masked tokens (cls.predictions). "
            "Give a model with its MLM head, as it was pretrained, or use predict."
        )
    tokenizer = load_tokenizer(folder.path)
    model = SqueezeBertForMaskedLM.from_folder(folder.path)
    _check(folder, model, tokenizer)
    return Opened(folder, model, tokenizer)


def open_masked_lm(source: Source) -> Opened[SqueezeBertForMaskedLM] | Opened[nn.Module]:
    """Open a masked language model of either kind, with a tokenizer of BERT's kind.

    Raises:
        UserError: as `open_squeezebert_mlm`, or transformers cannot open the model.
    """
    folder = model_folder(source)
    if folder.is_squeezebert:
        return open_squeezebert_mlm(folder)
    tokenizer = load_tokenizer(folder.path)
    model = _of_transformers(folder.path, "AutoModelForMaskedLM", "a masked language model")
    _check(folder, model, tokenizer)
    return Opened[nn.Module](folder, model, tokenizer)


def open_encoder(source: Source) -> Opened[SqueezeBertModel] | Opened[nn.Module]:
    """Open the encoder of a model of either kind, with a tokenizer as BERT has it.

    Raises:
        UserError: The model or its tokenizer cannot be opened, they do not fit each other, or
            weights are not finite.
    """
    folder = model_folder(source)
    tokenizer = load_tokenizer(folder.path)
    if folder.is_squeezebert:
        model = SqueezeBertModel.from_folder(folder.path)
        _check(folder, model, tokenizer)
        return Opened(folder, model, tokenizer)
    encoder = _of_transformers(folder.path, "AutoModel", "an encoder")
    _check(folder, encoder, tokenizer)
    return Opened[nn.Module](folder, encoder, tokenizer)


def open_for_pretraining(source: Source) -> OpenedForPretraining:
    """Open a SqueezeBERT with its MLM head and its SOP head, which is new if none was saved.

    Raises:
        UserError: the model or its tokenizer cannot be opened, they do not fit each other, or
            weights are not finite.
    """
    folder = model_folder(source)
    has_tokenizer = any((folder.path / name).exists() for name in ("tokenizer.json", "vocab.txt"))
    tokenizer = load_tokenizer(folder.path) if has_tokenizer else None
    model = SqueezeBertForPreTraining.from_folder(folder.path)
    _check(folder, model, tokenizer)
    return OpenedForPretraining(folder, model, tokenizer)


def _check(folder: ModelFolder, model: Any, tokenizer: Tokenizer | None) -> None:
    """Raise UserError if weights are not finite, or tokens of the tokenizer have no embedding."""
    refuse_not_finite(model, folder.path)
    tokens = 0 if tokenizer is None else tokenizer.get_vocab_size()
    if tokens > model.config.vocab_size:
        raise UserError(
            f"The vocabulary in {folder.path} ({tokens:,} tokens) does not fit its model "
            f"({model.config.vocab_size:,}). Give a folder whose tokenizer and weights belong "
            "together."
        )


def _of_transformers(folder: Path, auto: str, name: str) -> Any:
    """Open a PreTrainedModel with weights in fp32; transformers runs no code from the folder.

    auto: the class of transformers that opens it.
    name: of the model's kind, for messages.

    An encoder may lack a pooler, because no caller reads it.
    """
    check_shards(folder)
    try:
        with quiet_transformers(folder) as transformers:
            config = read_sizes(transformers, folder)
            model, about = getattr(transformers, auto).from_pretrained(
                folder, config=config, output_loading_info=True, dtype=torch.float32, **LOCAL
            )
    except UserError:  # there is no such library
        raise
    except Exception as error:  # the library raises all kinds
        raise UserError(
            f"transformers does not open {folder} as {name} ({' '.join(str(error).split())}). Give "
            "another model."
        ) from error
    refuse_types(folder)
    missing = sorted(key for key in about["missing_keys"] if not key.startswith("pooler."))
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        advice = "Give another model."
        if auto == "AutoModelForMaskedLM":
            advice = "Give a model with its MLM head, as it was pretrained."
        raise UserError(
            f"The weights in {folder} lack a part of {name}: {missing[0]}{others} would be random. "
            f"{advice}"
        )
    return model
