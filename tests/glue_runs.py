"""Finetuning on GLUE's own files, as `sqzb finetune --glue-dir` does it, for tests that call it as
a function.
"""

from pathlib import Path
from typing import Any

from sqzb.finetuning import job
from sqzb.finetuning.data import open_data
from sqzb.model import SqueezeBertConfig
from sqzb.recipe import FinetuneRecipe
from sqzb.training.resume import NEVER


def tiny(vocab_size: int, **changes: Any) -> SqueezeBertConfig:
    """The sizes of a model that trains in a second."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    return SqueezeBertConfig(
        **{**sizes, "vocab_size": vocab_size, "max_position_embeddings": 32} | changes
    )


def finetune(recipe: FinetuneRecipe, glue: Path, resume: str = NEVER, extend: bool = False) -> Path:
    """Run the recipe on the files under `glue`; return the run's folder."""
    recipe = recipe.model_copy(update={"glue_dir": str(glue)})
    return job.finetune(recipe, open_data(recipe), resume, extend)
