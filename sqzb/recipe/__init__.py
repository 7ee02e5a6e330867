"""Recipes, checked whole before anything heavy is loaded."""

from sqzb.recipe.reading import Recipe, dump_recipe, load_recipe
from sqzb.recipe.schema import (
    CorpusRecipe,
    Distillation,
    FinetuneRecipe,
    MaskedLMDistillation,
    Masking,
    Optimizer,
    PretrainRecipe,
    Section,
    Source,
    SweepRecipe,
    TrainingRecipe,
    Vocabulary,
)

__all__ = [
    "CorpusRecipe",
    "Distillation",
    "FinetuneRecipe",
    "MaskedLMDistillation",
    "Masking",
    "Optimizer",
    "PretrainRecipe",
    "Recipe",
    "Section",
    "Source",
    "SweepRecipe",
    "TrainingRecipe",
    "Vocabulary",
    "dump_recipe",
    "load_recipe",
]
