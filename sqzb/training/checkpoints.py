"""Checkpoints: the Hugging Face folder, the optimizer's tensors and trainer.json, each folder whole or absent."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.optim import Optimizer

from sqzb.errors import UserError
from sqzb.files import ASIDE, whole_folder, write_json
from sqzb.model.checkpoint import SavedModel

OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"


def save(
    folder: Path,
    step: int,
    model: SavedModel,
    optimizer: Optimizer,
    tokenizer: Tokenizer,
    state: dict[str, Any],
    keep: int,
) -> None:
    """Write checkpoints/step-N under the run `folder`, then remove all but the newest `keep`."""
    with whole_folder(folder / "checkpoints" / f"step-{step:07d}") as aside:
        model.save_pretrained(aside, tokenizer)
        save_file(_tensors(model, optimizer), aside / OPTIMIZER)
        write_json(aside / TRAINER, state | {"step": step})
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of the run, None if there is none."""
    return next(reversed(_all(folder)), None)


def load(checkpoint: Path, model: SavedModel, optimizer: Optimizer) -> dict[str, Any]:
    """Put the checkpoint's weights and moments into model and optimizer; what trainer.json holds."""
    try:
        model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict())
    except RuntimeError as error:
        raise UserError(
            f"The checkpoint {checkpoint} is of a model of other sizes. Resume with the recipe of its run, or give "
            "another --output."
        ) from error
    try:
        tensors = load_file(checkpoint / OPTIMIZER)
        state: dict[str, Any] = json.loads((checkpoint / TRAINER).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint {checkpoint} is damaged ({error}). Remove it to resume from an older one."
        ) from error
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        moment, name = key.split("/")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensor.to(parameter.device) if tensor.ndim else tensor
    return state


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "checkpoints").glob("step-*") if path.suffix != ASIDE)


def _tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state under moment/parameter; counts become tensors without a dimension."""
    return {
        f"{moment}/{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state[parameter].items()
        if moment == "step" or (isinstance(value, torch.Tensor) and value.shape == parameter.shape)
    }
