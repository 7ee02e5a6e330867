"""A recipe's settings that follow from the training examples and the model."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.finetuning.texts import TextFigures, measure_texts
from sqzb.model.open import Classifier
from sqzb.recipe import FinetuneRecipe
from sqzb.recipe.automatic import resolve


def resolved_recipe(
    recipe: FinetuneRecipe, train: Sequence[Example], model: Classifier, tokenizer: Tokenizer
) -> tuple[FinetuneRecipe, TextFigures | None]:
    """Return the recipe with numbers in place of `auto`, and figures of the texts.

    The texts are measured where they are shown, as of own data, or decide.

    Raises:
        UserError: the model reads fewer tokens than the recipe's max_length.
    """
    positions = model.config.max_position_embeddings
    if recipe.max_length != "auto" and recipe.max_length > positions:
        raise UserError(
            f"max_length {recipe.max_length} is more than the model's {positions} positions. "
            "Lower it."
        )
    if not recipe.data.train and "auto" not in (recipe.epochs, recipe.lr, recipe.max_length):
        return recipe, None
    texts = measure_texts(train, tokenizer)
    return resolve(recipe, texts.lengths, model.config.hidden_size, positions), texts
