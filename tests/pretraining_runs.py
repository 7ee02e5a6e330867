"""Pretraining runs, and what they leave, for the tests that compare them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sqzb.recipe import PretrainRecipe


def at(recipe: PretrainRecipe, output: Path, **changes: Any) -> PretrainRecipe:
    """The recipe with another run folder, and other values of some keys."""
    return recipe.model_copy(update={"output": str(output), **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    """All weights of the final model, those of the head for sentence order too."""
    final = folder / "final"
    return load_file(final / "model.safetensors") | load_file(final / "sop_head.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both have the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
