"""Finetuning on GLUE's own files, as `sqzb finetune --glue-dir` does it, for tests that call it as a function."""

from pathlib import Path

from sqzb.finetuning import job
from sqzb.finetuning.data import open_data
from sqzb.recipe import FinetuneRecipe
from sqzb.training.loop import NEVER


def finetune(recipe: FinetuneRecipe, glue: Path, resume: str = NEVER, extend: bool = False) -> Path:
    """Run the recipe on the files under `glue`; return the run's folder."""
    recipe = recipe.model_copy(update={"glue_dir": str(glue)})
    return job.finetune(recipe, open_data(recipe), resume, extend)
