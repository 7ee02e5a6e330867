"""Checkpoints and final/, each complete or absent.

A checkpoint is a Hugging Face folder with the optimizer's tensors and trainer.json.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.optim import Optimizer

from sqzb.errors import UserError
from sqzb.files import read_json_object, sha256, whole_folder, write_json
from sqzb.model.checkpoint import CONFIG, StoredModel, write_tensors
from sqzb.model.sentence_transformers import write_modules
from sqzb.recipe import FinetuneRecipe, Section, number
from sqzb.training.run_folder import CHECKPOINTS

OPTIMIZER, AVERAGE = "optimizer.safetensors", "average.safetensors"
TRAINER, MANIFEST = "trainer.json", "manifest.json"
# The name of a checkpoint's folder. Any other name beside it, such as that of a user's copy, is
# neither read nor removed.
NAME = re.compile(r"step-([0-9]{7,})")
# Files without which no run can resume.
NEEDED = (CONFIG, OPTIMIZER, TRAINER)


def save(
    folder: Path,
    step: int,
    model: StoredModel,
    optimizer: Optimizer,
    tokenizer: Tokenizer,
    state: Mapping[str, Any],
    average: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Path:
    """Write checkpoints/step-N under the run `folder`, and return its path.

    state: further content of trainer.json.
    average: mean of each of the model's parameters; empty if there is none.
    """
    path = of_step(folder, step)
    if path.is_symlink():
        path.unlink()  # the link's target may be anybody's
    with whole_folder(path) as aside:
        model.save_pretrained(aside, tokenizer)
        write_tensors(aside / OPTIMIZER, _tensors(model, optimizer))
        if average:
            tensors = {name: mean.cpu().contiguous() for name, mean in average.items()}
            write_tensors(aside / AVERAGE, tensors)
        write_json(aside / TRAINER, {**state, "step": step})
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for file in sorted(aside.iterdir())
        }
        write_json(aside / MANIFEST, files)
    return path


def remove_old(
    folder: Path,
    step: int,
    keep: int,
    keep_every: int | None = None,
    needed: Callable[[int], int | None] = lambda step: None,
) -> None:
    """Remove the run's old checkpoints; that of `step`, the newest ones and some others stay.

    keep: number of the newest checkpoints that stay.
    keep_every: checkpoints of every `keep_every`-th step stay too.
    needed: the step of an older checkpoint that a run resumed at a step needs, or None; it stays
    too.
    """
    steps = [_step(checkpoint) for checkpoint in _all(folder)]
    # This step is not among the newest if the run has resumed from an older checkpoint.
    kept = {step, *steps[-keep:]}
    if keep_every is not None:
        kept |= {old for old in steps if old % keep_every == 0}
    needed_too = {needed(old) for old in kept}
    for old in steps:
        if old not in kept | needed_too:
            _remove(of_step(folder, old))


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint; of a link to one, only the link."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
    else:
        shutil.rmtree(checkpoint)


def write_final(folder: Path, model: StoredModel, tokenizer: Tokenizer, recipe: Section) -> None:
    """Write final/ under the run `folder`: a Hugging Face folder, still without a model card."""
    with whole_folder(folder / "final") as aside:
        model.save_pretrained(aside, tokenizer)
        max_length = int(number(recipe.max_length)) if isinstance(recipe, FinetuneRecipe) else None
        write_modules(aside, max_length)


def of_step(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint, whether it exists or not."""
    return folder / CHECKPOINTS / f"step-{step:07d}"


def any_of(folder: Path) -> bool:
    """Return whether the run has a checkpoint, be it damaged."""
    return bool(_all(folder))


def newest(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the run's newest checkpoint that is undamaged; None if there is none.

    warn: gets a sentence about each damaged checkpoint.

    The files of each checkpoint that is examined are hashed, which takes long for a large model.
    """
    for checkpoint in reversed(_all(folder)):
        problems = damage(checkpoint)
        if not problems:
            return checkpoint
        warn(
            f"The checkpoint {checkpoint} is skipped, because it is damaged: {', '.join(problems)}."
        )
    return None


def check_whole(checkpoint: Path) -> None:
    """Compare a checkpoint's files with its manifest, as `newest` does.

    Raises:
        UserError: a file is missing or damaged.
    """
    problems = damage(checkpoint)
    if problems:
        raise UserError(
            f"The checkpoint {checkpoint} is damaged: {', '.join(problems)}. Give an older one."
        )


def damage(checkpoint: Path) -> list[str]:
    """Return the problems of a checkpoint's files by its manifest; empty if it is undamaged."""
    try:
        files = read_json_object(checkpoint / MANIFEST)
        written = {name: (about["bytes"], about["sha256"]) for name, about in files.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"its {MANIFEST} cannot be read ({_reason(error)})"]

    problems = [f"its {MANIFEST} lacks {name}" for name in NEEDED if name not in written]
    for name, (n_bytes, content_hash) in written.items():
        path = checkpoint / name
        try:
            if path.stat().st_size != n_bytes or sha256(path) != content_hash:
                problems.append(f"{name} has changed")
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except OSError as error:
            problems.append(f"{name} cannot be read ({_reason(error)})")
    return problems or _step_problems(checkpoint)


def _step_problems(checkpoint: Path) -> list[str]:
    """Return whether the checkpoint, whose files are as they were written, is of another step."""
    try:
        step = read_json_object(checkpoint / TRAINER).get("step")
    except (OSError, ValueError) as error:
        return [f"{TRAINER} cannot be read ({_reason(error)})"]
    named = NAME.fullmatch(checkpoint.name)
    if named is not None and int(named[1]) != step:
        return [f"it is of step {step}, and its folder was renamed"]
    return []


def _reason(error: Exception) -> str:
    """Return the text of an error, which for a missing key is the key alone."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the content of trainer.json of a checkpoint that is known to be undamaged."""
    return read_json_object(checkpoint / TRAINER)


def load(checkpoint: Path, model: StoredModel, optimizer: Optimizer) -> None:
    """Load the checkpoint's weights and moments into model and optimizer.

    Raises:
        UserError: the optimizer's file cannot be read, or the model has other sizes.
    """
    load_model(checkpoint, model)
    tensors = _read_tensors(checkpoint / OPTIMIZER)
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        moment, name = key.split("/")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensor.to(parameter.device)


def load_average(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the mean of the model's weights by parameter; empty if the checkpoint has none.

    Raises:
        UserError: the file cannot be read.
    """
    path = checkpoint / AVERAGE
    return _read_tensors(path) if path.exists() else {}


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint {path.parent} is damaged ({error}). Give an older one."
        ) from error


def load_model(checkpoint: Path, model: StoredModel) -> None:
    """Load the checkpoint's weights into the model.

    Raises:
        UserError: the checkpoint is of a model of other sizes.
    """
    try:
        model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict())
    except RuntimeError as error:
        raise UserError(
            f"The checkpoint {checkpoint} belongs to a model of another size. Resume with the "
            "recipe of its run, or give another --output."
        ) from error


def size(model: nn.Module, state: int | None = None) -> int:
    """Return the bytes of a checkpoint: weights and state in fp32, and 2 MiB for the rest.

    state: numbers that optimizer and average keep; None: two moments of each parameter.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    return 4 * (weights + (2 * weights if state is None else state)) + 2**21


def _all(folder: Path) -> list[Path]:
    """Return the run's checkpoints by step, whether they are damaged or not."""
    parent = folder / CHECKPOINTS
    paths = list(parent.iterdir()) if parent.is_dir() else []
    # Another name of the same step, such as one with a digit more, is a user's copy.
    ours = [path for path in paths if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted((path for path in ours if path == of_step(folder, _step(path))), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state by KEY/PARAMETER; numbers become tensors without a dimension.

    Raises:
        ValueError: the optimizer has state that would be lost; none of ours has.
    """
    parameters = dict(model.named_parameters())
    foreign = set(optimizer.state) - set(parameters.values())
    if foreign:
        shapes = sorted(str(tuple(parameter.shape)) for parameter in foreign)
        raise ValueError(
            "the optimizer trains parameters that no checkpoint holds, of shapes "
            f"{', '.join(shapes)}"
        )

    tensors = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = _tensor(value, parameter, name, key)
    return tensors


def _tensor(value: object, parameter: nn.Parameter, name: str, key: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor | int | float):
        raise ValueError(
            f"the optimizer's state {key!r} of {name} is a {type(value).__name__}: no checkpoint "
            "holds it"
        )
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    if tensor.ndim and tensor.shape != parameter.shape:
        raise ValueError(
            f"the optimizer's state {key!r} of {name} has the shape {tuple(tensor.shape)}, and "
            f"the parameter has {tuple(parameter.shape)}: no checkpoint holds it"
        )
    return tensor
