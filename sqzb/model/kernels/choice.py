"""Which models run by the kernels."""

import contextlib

import torch
from torch import nn

from sqzb.errors import UserError
from sqzb.model.layers import use_kernels
from sqzb.recipe import TrainingRecipe

SHARED_MEMORY = 198_656  # bytes of a block: the most that a kernel takes, the gradient of weights


def choose_kernels(recipe: TrainingRecipe, model: nn.Module, device: torch.device) -> None:
    """Let the model run by the kernels where the recipe asks for them.

    With `kernels: null` the kernels run where they were measured to be faster, compiled or not: in
    bf16, on an NVIDIA GPU with the shared memory of an H100, by a model that they fit.

    Raises:
        UserError: the recipe asks for kernels that this device or this model cannot have.
    """
    on_nvidia = device.type == "cuda" and torch.version.hip is None

    if recipe.kernels is None:
        if on_nvidia and recipe.precision == "bf16" and _has_shared_memory(device):
            with contextlib.suppress(ImportError, ValueError):
                use_kernels(model)
        return

    if recipe.kernels:
        if not on_nvidia:
            raise UserError(
                f"kernels: they run on an NVIDIA GPU, and this is {device}. Leave it null."
            )
        try:
            use_kernels(model)
        except (ImportError, ValueError) as error:
            raise UserError(f"kernels: {error}. Leave it null.") from error


def _has_shared_memory(device: torch.device) -> bool:
    """Return whether a block may have as much as the kernels take; that of an A100 or RTX 4090 may not."""
    properties = torch.cuda.get_device_properties(device)
    memory: int = getattr(properties, "shared_memory_per_block_optin", 0)  # torch's types lack it
    return memory >= SHARED_MEMORY
