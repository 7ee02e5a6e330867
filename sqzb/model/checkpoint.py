"""Hugging Face folders, read and written: config.json, model.safetensors, tokenizer.json; no code.

The published format has no sentence-order head, so that head is in a file of its own beside the
weights: other tools see only files that they know, and a second phase of pretraining still finds
the head.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
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
INDEX = ".index.json"  # behind the name of weights that are divided among several files

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
MOST_TIMES = 10  # the number of parameters without groups, over that with groups
WEIGHT_TYPES = ("float64", "float32", "float16", "bfloat16")

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
        wanted = SqueezeBertConfig(**config.model_dump() | changes)
        stored = sum(tensor.numel() for tensor in tensors.values())
        if wanted.about_parameters() > MOST_TIMES * stored + 10_000_000:
            # The memory for such a model may not exist, and its tensors do not fit.
            with torch.device("meta"):
                cls(wanted)._load(tensors, folder, fresh)
        with enough_memory(folder):
            model = cls(wanted)
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
        problems += misfits({name: torch_name(tensor) for name, tensor in matching.items()})
        problems += [
            f"{name} has shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            for name, tensor in matching.items()
            if tensor.shape != own[name].shape
        ]
        if problems:
            raise UserError(
                f"The weights in {folder} do not fit {type(self).__name__} as {CONFIG} describes "
                f"it: {first_of(problems)}. Is this the right folder, and were its files saved "
                "together?"
            )
        self.load_state_dict(matching, strict=False)


def first_of(problems: Sequence[str], most: int = 12) -> str:
    """Return the first problems in a line, and the number of the others."""
    others = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {others:,} others" if others > 0 else "")


@contextmanager
def enough_memory(folder: Path) -> Iterator[None]:
    """Raise UserError if the block cannot get the memory for a model of the sizes in `folder`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise UserError(
            f"There is not enough memory for a model of the sizes in {folder / CONFIG}. Check the "
            "sizes there, or use a machine with more memory."
        ) from error


def misfits(types: Mapping[str, str]) -> list[str]:
    """Return a problem for each weight or bias that is stored in a type of other numbers.

    Bytes of a quantised model would be taken for the weights themselves.

    types: torch's name of each tensor's type, by the tensor's name.
    """
    return [
        f"{name} has type {dtype} instead of {', '.join(WEIGHT_TYPES[:-1])} or {WEIGHT_TYPES[-1]}"
        for name, dtype in types.items()
        if name.endswith(("weight", "bias")) and dtype not in WEIGHT_TYPES
    ]


def stored_types(folder: Path) -> dict[str, str]:
    """Return torch's names of the types of all tensors in safetensors files, by tensor.

    Raises:
        UserError: there are no weights, or they cannot be read.
    """
    types: dict[str, str] = {}
    with _readable(folder):
        for path in _weight_files(folder):
            if path.name != OLD_WEIGHTS:
                types |= {name: stored.dtype for name, stored in _header_of(path).items()}
    return types


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
    """Return the files with the weights, and that of the SOP head if it exists."""
    sop_head = folder / SOP_HEAD
    heads = [sop_head] if sop_head.exists() else []
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS, *heads]
    if (folder / f"{WEIGHTS}{INDEX}").exists():
        return [*shards(folder, WEIGHTS), *heads]
    if (folder / OLD_WEIGHTS).exists():
        return [folder / OLD_WEIGHTS, *heads]
    if (folder / f"{OLD_WEIGHTS}{INDEX}").exists():
        raise UserError(
            f"{folder} has its weights in several files of the old form {OLD_WEIGHTS}. Save it as "
            f"{WEIGHTS}: transformers' save_pretrained writes this form."
        )
    raise UserError(
        f"{folder} has no weights: neither {WEIGHTS} nor {OLD_WEIGHTS} is there. Give the "
        "folder of a saved model."
    )


def check_shards(folder: Path) -> None:
    """Check the indices of weights in `folder`, before a library follows them.

    Raises:
        UserError: an index is damaged, or names a file that is not in the folder.
    """
    for weights in (WEIGHTS, OLD_WEIGHTS):
        if (folder / f"{weights}{INDEX}").exists():
            shards(folder, weights)


def shards(folder: Path, weights: str) -> list[Path]:
    """Return the files among which weights are divided, as their index names them, in order.

    Raises:
        UserError: the index is damaged, or names a file that is not in the folder.
    """
    path = folder / f"{weights}{INDEX}"
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        in_order = sorted(names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is no index of weights: it has no weight_map from tensors to files "
            f"({type(error).__name__}: {error}). Save or download the model again."
        ) from error
    for name in in_order:
        # A name with a folder in it could lead to any file of this machine.
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise UserError(
                f"{path} names the file {name!r}, and weights are read only from {folder} itself. "
                "Get the model from somebody whom you trust."
            )
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} lacks the file {name}, which {path.name} names. Save or download the "
                "model again."
            )
    if not in_order:
        raise UserError(f"{path} names no files. Save or download the model again.")
    return [folder / name for name in in_order]


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


def torch_name(tensor: Tensor) -> str:
    """Return torch's name of a tensor's type, such as float32."""
    return str(tensor.dtype).removeprefix("torch.")


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(torch_name(tensor), tuple(tensor.shape))
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
