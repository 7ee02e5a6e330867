"""Settings that follow from the data and the model, for a recipe's `auto`."""

import numpy as np
from numpy.typing import NDArray

from sqzb.recipe import FinetuneRecipe

Lengths = NDArray[np.int64]

# The model card's run on MRPC: 10 epochs of 3,668 examples, at 3e-5, on a model of width 768.
CARD_EXAMPLES, CARD_RATE, CARD_WIDTH = 36_680, 3e-5, 768
FEWEST_EPOCHS, MOST_EPOCHS = 2, 20
MANY_EXAMPLES = 300_000  # from which one epoch is enough
HIGHEST_RATE = 1e-3

COVERED = 95  # per cent of the training examples that are not cut
LENGTH_UNIT = 8  # tokens
SHORTEST, LONGEST = 16, 256  # tokens


def resolve(recipe: FinetuneRecipe, lengths: Lengths, width: int, positions: int) -> FinetuneRecipe:
    """Return the recipe with numbers in place of `auto`.

    lengths: tokens of each training example, uncut.
    width: of the model's hidden states.
    positions: tokens that the model can read.
    """
    values = {
        "epochs": epochs_for(len(lengths)),
        "lr": rate_for(width),
        "max_length": length_for(lengths, positions),
    }
    unresolved = {key: value for key, value in values.items() if getattr(recipe, key) == "auto"}
    return recipe.model_copy(update=unresolved)


def epochs_for(examples: int) -> int:
    """Return the epochs in which a run sees as many examples as the model card's run on MRPC.

    Small data is repeated at most 20 times; large data is seen twice, and very large data once.
    """
    if examples >= MANY_EXAMPLES:
        return 1
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(CARD_EXAMPLES / examples)))


def rate_for(width: int) -> float:
    """Return the peak learning rate: the model card's at width 768, and higher for narrower models.

    The rate is inverse to the width, and at most 1e-3; for wider models it is the card's.
    """
    rate = CARD_RATE * max(1.0, CARD_WIDTH / width)
    return float(f"{min(rate, HIGHEST_RATE):.2g}")


def length_for(lengths: Lengths, positions: int) -> int:
    """Return the length, in tokens, that leaves 95 % of the examples whole.

    It is a multiple of 8, from 16 to 256, and never over the model's positions.
    """
    covering = int(np.percentile(lengths, COVERED, method="higher"))
    rounded = -(-covering // LENGTH_UNIT) * LENGTH_UNIT
    return min(max(rounded, SHORTEST), LONGEST, positions)
