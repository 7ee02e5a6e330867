"""The door to labelled data: from a recipe to a data set."""

from pathlib import Path

from sqzb.data.dataset import DataSet
from sqzb.errors import UserError
from sqzb.glue.data import open_task
from sqzb.recipe import FinetuneRecipe


def open_data(recipe: FinetuneRecipe) -> DataSet:
    """Return the data set that the recipe names. Its splits are read when they are asked for.

    Raises:
        UserError: The recipe names no task, or none that exists.
    """
    if recipe.task is None:
        raise UserError("There is no task: give --task, such as --task mrpc.")
    folder = None if recipe.glue_dir is None else Path(recipe.glue_dir)
    return open_task(recipe.task, folder)
