"""The defaults of each optimizer, and values that are impossible together."""

from pathlib import Path
from typing import Any

import pytest

from sqzb.errors import RecipeError
from sqzb.recipe import Optimizer, PretrainRecipe, dump_recipe, load_recipe

MODEL = "model={}"


def test_lamb_has_the_defaults_of_earlier_versions() -> None:
    settings = Optimizer()
    assert settings.name == "lamb" and settings.schedule == "polynomial"
    assert (settings.lr, settings.warmup, settings.decay_power) == (2.5e-3, 0.28, 1.0)
    assert (settings.weight_decay, settings.betas, settings.eps) == (0.01, (0.9, 0.999), 1e-6)
    assert Optimizer(name="lamb") == settings


@pytest.mark.parametrize(("name", "lr"), [("lamb", 2.5e-3), ("adamw", 1e-3), ("muon", 0.02)])
def test_each_optimizer_has_defaults_of_its_own_and_saves_them(
    name: str, lr: float, tmp_path: Path
) -> None:
    recipe = load_recipe(PretrainRecipe, None, [MODEL, f"optimizer.name={name}"])
    assert recipe.optimizer.lr == lr
    assert recipe.optimizer.betas == ((0.9, 0.999) if name == "lamb" else (0.9, 0.98))
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert f"lr: {recipe.optimizer.lr}" in path.read_text()
    assert load_recipe(PretrainRecipe, path) == recipe


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_a_given_key_wins_over_the_default(name: str) -> None:
    keys = ["optimizer.lr=0.5", "optimizer.eps=1e-3", f"optimizer.name={name}"]
    recipe = load_recipe(PretrainRecipe, None, [MODEL, *keys])
    assert (recipe.optimizer.lr, recipe.optimizer.eps) == (0.5, 1e-3)


@pytest.mark.parametrize("name", ["adam", 3, ["muon"], {"a": 1}, None])
def test_an_unknown_optimizer_is_refused(name: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{}}\noptimizer: {{name: {'null' if name is None else name}}}\n")
    with pytest.raises(RecipeError, match=r"optimizer\.name: should be 'lamb', 'adamw' or 'muon'"):
        load_recipe(PretrainRecipe, path)


def test_a_cooldown_begins_after_the_warmup() -> None:
    keys = ["optimizer.schedule=wsd", "optimizer.warmup=0.5", "optimizer.cooldown=0.6"]
    with pytest.raises(RecipeError, match=r"optimizer\.cooldown: 0\.6 and warmup = 0\.5"):
        load_recipe(PretrainRecipe, None, [MODEL, *keys])
    load_recipe(PretrainRecipe, None, [MODEL, *keys, "optimizer.cooldown=0.5"])
