"""Recipes, validated as a whole before any heavy library is loaded."""

from sqzb.recipe.corpus import CorpusRecipe, Source, Vocabulary
from sqzb.recipe.optimizer import Optimizer
from sqzb.recipe.pretraining import MaskedLMDistillation, Masking, PretrainRecipe
from sqzb.recipe.reading import Recipe, dump_recipe, load_recipe
from sqzb.recipe.schema import (
    REMOVED,
    Distillation,
    FinetuneRecipe,
    TrainingRecipe,
    without_removed,
)
from sqzb.recipe.sweeps import ALL, Stage, SweepRecipe
from sqzb.recipe.values import Section, flat, number

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
    "number",
    "without_removed",
]
