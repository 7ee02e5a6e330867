"""The choice between the kernels and plain torch."""

import contextlib

import torch
from torch import nn

from sqzb.errors import UserError
from sqzb.model.layers import use_kernels
from sqzb.recipe import TrainingRecipe

# Bytes of a block's shared memory: the most that a kernel uses, which is the gradient of weights.
SHARED_MEMORY = 198_656


def choose_kernels(recipe: TrainingRecipe, model: nn.Module, device: torch.device) -> None:
    """Make the model run the kernels if the recipe asks for them.

    With `kernels: null` the kernels run where they were measured to be faster, compiled or not: in
    bf16, on an NVIDIA GPU with the shared memory of an H100, by a model that fits them.

    Raises:
        UserError: the recipe asks for kernels that do not run on this device or with this model.
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
    """Return whether a block may use as much shared memory as the kernels need.

    The limit is high enough on an H100, but not on an A100 or RTX 4090.
    """
    properties = torch.cuda.get_device_properties(device)
    memory: int = getattr(properties, "shared_memory_per_block_optin", 0)  # torch's types lack it
    return memory >= SHARED_MEMORY
