"""Recipes, checked whole before anything heavy is loaded."""

from sqzb.recipe.reading import Recipe, dump_recipe, load_recipe
from sqzb.recipe.schema import (
    REMOVED,
    CorpusRecipe,
    Distillation,
    FinetuneRecipe,
    MaskedLMDistillation,
    Masking,
    Optimizer,
    PretrainRecipe,
    Section,
    Source,
    TrainingRecipe,
    Vocabulary,
    flat,
    without_removed,
)
from sqzb.recipe.sweeps import ALL, Stage, SweepRecipe

__all__ = [
    "ALL",
    "REMOVED",
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
    "Stage",
    "SweepRecipe",
    "TrainingRecipe",
    "Vocabulary",
    "dump_recipe",
    "flat",
    "load_recipe",
    "without_removed",
]
