"""Hugging Face folders, read and written: config.json, model.safetensors, tokenizer.json; no code.

The published format has no sentence-order head, so that head is in a file of its own beside the
weights: other tools see only files that they know, and a second phase of pretraining still finds
the head.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping
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

# Tensors of a file that are ignored: position ids of old releases, copies of tied weights, and the
# head that BERT's code leaves beside its MLM head.
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
# Names of types in a safetensors header, and torch's names of them.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}

Stored = TypeVar("Stored", bound="StoredModel")
Model = TypeVar("Model", bound="SavedModel")


class StoredModel(nn.Module, ABC):
    """A model that a Hugging Face folder holds."""

    @classmethod
    def from_pretrained(cls: type[Stored], source: str | Path, **changes: Any) -> Stored:
        """Open a local folder or a Hub id.

        changes: as in `from_folder`.
        """
        return cls.from_folder(local_folder(source), **changes)

    @classmethod
    @abstractmethod
    def from_folder(cls: type[Stored], folder: Path, **changes: Any) -> Stored:
        """Open a local folder.

        changes: fields of the configuration that get another value.
        """

    @abstractmethod
    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write a folder that transformers can open."""

    @abstractmethod
    def update_config(self, **fields: Any) -> None:
        """Give fields of the configuration another value, which `save_pretrained` writes."""


class SavedModel(StoredModel):
    """A SqueezeBERT whose configuration and weights are stored in a Hugging Face folder."""

    # Prefixes of heads that start from random weights when the folder has none of their tensors.
    fresh_if_absent: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_folder(cls: type[Model], folder: Path, **changes: Any) -> Model:
        """Open a local folder; weights are converted to fp32.

        changes: fields of the configuration that get another value; `id2label` makes a new
        classifier for these labels.

        Raises:
            UserError: the folder is not a SqueezeBERT's, or tensors are missing, unexpected or of
                another shape; lists each of them.
        """
        config = read_config(folder)
        tensors = read_tensors(folder)
        fresh = cls.fresh_if_absent
        if "id2label" in changes:
            fresh += (CLASSIFIER,)
            # The stored type, thresholds, scale and classifier are those of the old labels.
            changes = OF_LABELS | changes
            tensors = {
                name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)
            }
        try:
            model = cls(SqueezeBertConfig(**config.model_dump() | changes))
        except (RuntimeError, MemoryError) as error:
            raise UserError(
                f"A model of the sizes in {folder / CONFIG} does not fit into memory "
                f"({str(error).splitlines()[0]:.200}). Give a folder whose config.json and weights "
                "belong together."
            ) from error
        model._load(tensors, folder, fresh)
        return model

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the folder; an SOP head goes to a file beside the published layout."""
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
            # A model that was saved here before may have left its head.
            (folder / SOP_HEAD).unlink(missing_ok=True)
        write_json(folder / CONFIG, self.config.to_hf(self._architecture()))
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder, self.config.max_position_embeddings)

    def update_config(self, **fields: Any) -> None:
        """Give fields of the configuration another value, which `save_pretrained` writes."""
        self.config = self.config.model_copy(update=fields)

    def _architecture(self) -> str:
        """Return the class of transformers that opens the folder; it has none with both heads."""
        return type(self).__name__.replace("ForPreTraining", "ForMaskedLM")

    def _load(self, tensors: dict[str, Tensor], folder: Path, fresh: tuple[str, ...]) -> None:
        """Copy the tensors into this model.

        fresh: prefixes of heads that keep their random weights if `tensors` has none of theirs.

        Raises:
            UserError: tensors are missing, unexpected or of another shape; lists each of them.
        """
        own = self.state_dict()
        tensors = {
            _name_in(own, name): tensor for name, tensor in tensors.items() if name not in LEFTOVERS
        }
        others = tuple(head for head in HEADS if not _has_head(own, head))
        absent = tuple(head for head in fresh if not _has_head(tensors, head))
        matching = {name: tensor for name, tensor in tensors.items() if name in own}

        problems = [
            f"missing {name}"
            for name in own
            if name not in matching and not name.startswith(absent)
        ]
        problems += [
            f"unexpected {name}"
            for name in tensors
            if name not in own and not name.startswith(others)
        ]
        problems += [
            f"{name} has shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            for name, tensor in matching.items()
            if tensor.shape != own[name].shape
        ]
        if problems:
            raise UserError(
                f"The weights in {folder} do not fit {type(self).__name__} as {CONFIG} describes "
                f"it: {'; '.join(problems)}. Is this the right folder, and were its files saved "
                "together?"
            )
        self.load_state_dict(matching, strict=False)


def _has_head(names: Iterable[str], head: str) -> bool:
    return any(name.startswith(head) for name in names)


def _name_in(own: Container[str], name: str) -> str:
    """Return the name in `own` of the tensor `name`, with or without the encoder's prefix."""
    stem = name.removeprefix(ENCODER)
    return next((known for known in (name, stem, ENCODER + stem) if known in own), name)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the tensors to a safetensors file, atomically."""
    with whole_file(path) as aside:
        # Not save_file, which does not report a full disk.
        aside.write_bytes(serialize(tensors, metadata={"format": "pt"}))


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors' names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_config(folder: Path) -> SqueezeBertConfig:
    """Return the configuration in `folder`.

    Raises:
        UserError: the configuration is absent, broken, or another model's.
    """
    path = folder / CONFIG
    try:
        return SqueezeBertConfig.from_hf(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no saved model: it has no {CONFIG}. Give a folder written by sqzb or "
            "transformers, such as the final/ folder of a run."
        ) from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} does not describe a SqueezeBERT: {error}. Give the folder of another model."
        ) from error


class StoredTensor(NamedTuple):
    """The header's entry for a tensor in a file.

    dtype: torch's name of the type, such as "float16".
    """

    dtype: str
    shape: tuple[int, ...]


def read_header(folder: Path) -> dict[str, StoredTensor]:
    """Return the entries of all tensors in `folder`, by name, without reading the tensors.

    An old pytorch_model.bin has no header, so its tensors are read.

    Raises:
        UserError: there are no weights, or they cannot be read.
    """
    entries: dict[str, StoredTensor] = {}
    with _readable(folder):
        for path in _weight_files(folder):
            entries |= _header_of(path) if path.name != OLD_WEIGHTS else _entries(_read_old(path))
    return entries


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors in `folder`, from safetensors or from an old pytorch_model.bin.

    Raises:
        UserError: there are no weights, they cannot be read, or a pytorch_model.bin holds anything
            but tensors.
    """
    tensors: dict[str, Tensor] = {}
    with _readable(folder):
        for path in _weight_files(folder):
            tensors |= load_file(path) if path.name != OLD_WEIGHTS else _read_old(path)
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    """Return the file with the weights, and that of the SOP head if it exists."""
    candidates = [folder / WEIGHTS, folder / OLD_WEIGHTS]
    weights = next((file for file in candidates if file.exists()), None)
    if weights is None:
        raise UserError(
            f"{folder} has no weights: neither {WEIGHTS} nor {OLD_WEIGHTS} is there. Give the "
            "folder of a saved model."
        )
    sop_head = folder / SOP_HEAD
    return [weights, sop_head] if sop_head.exists() else [weights]


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raise UserError if the block fails to read the weights in `folder`."""
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
    """Raise an error if a weight is not finite.

    folder: where the weights were read, for the message.

    Raises:
        UserError: a weight is infinite or NaN.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"The model in {folder} has non-finite values in {name}: it is damaged, "
                "or its training has diverged. Give another one, or an earlier checkpoint."
            )


def _read_old(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise errors of many kinds
        raise UserError(
            f"{path} is not opened: it is damaged, or holds more than tensors and could run code. "
            f"If you trust the file, convert it to {WEIGHTS} first."
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise UserError(
            f"{path} is no state dict: it must map names to tensors. Save the model's state_dict()."
        )
    return tensors
