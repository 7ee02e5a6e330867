"""The Hugging Face folder, both ways: config.json, model.safetensors, tokenizer.json, and nothing that can run code.

The head for sentence order has no place in the published format, so it lies beside it in a file of
its own: other tools see a folder without strangers, and a second phase of pretraining still finds
the head.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb.errors import UserError
from sqzb.files import whole_file, write_json
from sqzb.hub import local_folder
from sqzb.model.config import OF_LABELS, SqueezeBertConfig
from sqzb.tokenizer import save_tokenizer

CONFIG, WEIGHTS, OLD_WEIGHTS, SOP_HEAD = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "sop_head.safetensors",
)

# Tensors that a file may hold without a place of their own here: position numbers of old releases,
# copies of tied weights, and the head that BERT's code leaves beside its MLM head.
LEFTOVERS = {
    "embeddings.position_ids",
    "transformer.embeddings.position_ids",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
}
ENCODER = "transformer."
HEADS = MLM, SOP, CLASSIFIER = ("cls.", "sop.", "classifier.")
# A safetensors header's names of types, and torch's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}

Stored = TypeVar("Stored", bound="StoredModel")
Model = TypeVar("Model", bound="SavedModel")


class StoredModel(nn.Module, ABC):
    """A model that a Hugging Face folder holds."""

    @classmethod
    def from_pretrained(cls: type[Stored], source: str | Path, **changes: Any) -> Stored:
        """Open a local folder or a Hub id; changes: as `from_folder`."""
        return cls.from_folder(local_folder(source), **changes)

    @classmethod
    @abstractmethod
    def from_folder(cls: type[Stored], folder: Path, **changes: Any) -> Stored:
        """Open a local folder; changes: fields of the configuration to have another value."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the folder, as transformers opens it."""

    @abstractmethod
    def update_config(self, **fields: Any) -> None:
        """Give fields of the configuration another value, which `save_pretrained` writes."""


class SavedModel(StoredModel):
    """A SqueezeBERT with a configuration that can be read from and written to a Hugging Face folder."""

    # Prefixes of heads that start from random weights when the folder has none of their tensors.
    fresh_if_absent: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_folder(cls: type[Model], folder: Path, **changes: Any) -> Model:
        """Open a local folder, with weights in fp32 whatever they are stored in.

        changes: fields of the configuration to have another value; `id2label` makes a new
        classifier for these labels. Raises UserError when the folder is not a SqueezeBERT's, or
        listing every missing, unexpected or misshapen tensor.
        """
        config = read_config(folder)
        tensors = read_tensors(folder)
        fresh = cls.fresh_if_absent
        if "id2label" in changes:
            fresh += (CLASSIFIER,)
            changes = OF_LABELS | changes
            tensors = {
                name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)
            }
        model = cls(SqueezeBertConfig(**config.model_dump() | changes))
        model._load(tensors, folder, fresh)
        return model

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the folder; the SOP head, if there is one, goes to a file beside the published layout."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        sop = {name: tensors.pop(name) for name in list(tensors) if name.startswith(SOP)}
        write_tensors(folder / WEIGHTS, tensors)
        if sop:
            write_tensors(folder / SOP_HEAD, sop)
        else:
            (folder / SOP_HEAD).unlink(missing_ok=True)  # of a model that was saved here before
        write_json(folder / CONFIG, self.config.to_hf(self._architecture()))
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder, self.config.max_position_embeddings)

    def update_config(self, **fields: Any) -> None:
        """Give fields of the configuration another value, which `save_pretrained` writes."""
        self.config = self.config.model_copy(update=fields)

    def _architecture(self) -> str:
        """The class of transformers that opens the folder: it has none for pretraining with two heads."""
        return type(self).__name__.replace("ForPreTraining", "ForMaskedLM")

    def _load(self, tensors: dict[str, Tensor], folder: Path, fresh: tuple[str, ...]) -> None:
        own = self.state_dict()
        tensors = {
            _name_in(own, name): tensor for name, tensor in tensors.items() if name not in LEFTOVERS
        }
        others = tuple(head for head in HEADS if not any(name.startswith(head) for name in own))
        absent = tuple(head for head in fresh if not any(name.startswith(head) for name in tensors))
        found = {name: tensor for name, tensor in tensors.items() if name in own}
        problems = [
            f"missing {name}" for name in own if name not in found and not name.startswith(absent)
        ]
        problems += [
            f"unexpected {name}"
            for name in tensors
            if name not in own and not name.startswith(others)
        ]
        problems += [
            f"{name} has shape {tuple(tensor.shape)} where {tuple(own[name].shape)} is due"
            for name, tensor in found.items()
            if tensor.shape != own[name].shape
        ]
        if problems:
            raise UserError(
                f"The weights in {folder} do not fit {type(self).__name__} as {CONFIG} describes "
                f"it: {'; '.join(problems)}. Is this the right folder, and were its files saved "
                "together?"
            )
        self.load_state_dict(found, strict=False)


def _name_in(own: Container[str], name: str) -> str:
    """The name in `own` of the encoder's tensor `name`, which files have with or without `transformer.`."""
    stem = name.removeprefix(ENCODER)
    return next((known for known in (name, stem, ENCODER + stem) if known in own), name)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with whole_file(path) as aside:
        aside.write_bytes(
            serialize(tensors, metadata={"format": "pt"})
        )  # save_file hides that the disk is full


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers, whatever file they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_config(folder: Path) -> SqueezeBertConfig:
    """The configuration in `folder`; UserError when it is absent, broken or another model's."""
    path = folder / CONFIG
    try:
        return SqueezeBertConfig.from_hf(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no saved model: it has no {CONFIG}. Give a folder written by sqzb or "
            "transformers, such as the final/ folder of a run."
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} does not describe a SqueezeBERT: {error}. Give the folder of another model."
        ) from error


class StoredTensor(NamedTuple):
    """The header's entry for a tensor in a file."""

    dtype: str  # as torch names it, such as "float16"
    shape: tuple[int, ...]


def read_header(folder: Path) -> dict[str, StoredTensor]:
    """The entries of all tensors in `folder`, by name, without reading the tensors.

    An old pytorch_model.bin has no header, so its tensors are read.

    Raises:
        UserError: There are no weights, or they cannot be read.
    """
    entries: dict[str, StoredTensor] = {}
    with _unreadable_told(folder):
        for path in _weight_files(folder):
            entries |= _header_of(path) if path.name != OLD_WEIGHTS else _entries(_read_old(path))
    return entries


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors in `folder`, from safetensors or from an old pytorch_model.bin.

    Of the latter only tensors are read.

    Raises:
        UserError: There are no weights, or they cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    with _unreadable_told(folder):
        for path in _weight_files(folder):
            tensors |= load_file(path) if path.name != OLD_WEIGHTS else _read_old(path)
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    """The file with the weights, and the one with the SOP head where that exists."""
    weights = next(
        (folder / name for name in (WEIGHTS, OLD_WEIGHTS) if (folder / name).exists()), None
    )
    if weights is None:
        raise UserError(
            f"{folder} has no weights: neither {WEIGHTS} nor {OLD_WEIGHTS} is there. Give the "
            "folder of a saved model."
        )
    sop_head = folder / SOP_HEAD
    return [weights, sop_head] if sop_head.exists() else [weights]


@contextmanager
def _unreadable_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"The weights in {folder} cannot be read ({error}). Save or download them again."
        ) from error


def _header_of(path: Path) -> dict[str, StoredTensor]:
    entries = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # the file is no dictionary
            stored = file.get_slice(name)
            dtype = stored.get_dtype()
            entries[name] = StoredTensor(DTYPES.get(dtype, dtype), tuple(stored.get_shape()))
    return entries


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def refuse_not_finite(model: nn.Module, folder: Path) -> None:
    """UserError when weights are not finite; folder: where they were read, for the message."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"The model in {folder} has numbers in {name} that are not finite: it is damaged, "
                "or its training has diverged. Give another one, or an earlier checkpoint."
            )


def _read_old(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise all kinds
        raise UserError(
            f"{path} is not opened: it is damaged, or holds more than tensors and could run code. "
            f"Where you trust it, convert it to {WEIGHTS} first."
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items()
    ):
        raise UserError(
            f"{path} is no state dict: it must map names to tensors. Save the model's state_dict()."
        )
    return tensors
