"""The losses and accuracies of a pretrained model on the held-out part of its corpus."""

from sqzb.pretraining.batches import Examples
from sqzb.training.engine import Evaluator

# For each loss of the model, the entry of a micro-batch that holds its labels.
LABELS = {"mlm": "mlm_labels", "sop": "sop_labels"}
# The figures of the yardstick, by the name of the figure at the recipe's own masks.
YARDSTICK = {"mlm_loss": "mlm_loss_15", "mlm_accuracy": "mlm_accuracy_15"}


def evaluate_heldout(
    evaluator: Evaluator, examples: Examples, at_most: int | None
) -> dict[str, float]:
    """Return heldout_NAME_loss (nats) and heldout_NAME_accuracy, the same in every process.

    heldout_mlm_loss_15 and heldout_mlm_accuracy_15 are the yardstick, which has the same masks for
    every recipe. Where the recipe has other masks, the yardstick takes a second evaluation.

    at_most: number of held-out sequences to use, None for all.
    Without a held-out part there are no figures.
    """
    if not len(examples.heldout):
        return {}
    figures = evaluator.evaluate(examples.of_heldout(at_most))
    at_own_masks = figures if examples.has_yardstick_masks else None
    figures = figures | evaluate_yardstick(evaluator, examples, at_most, at_own_masks)
    return {f"heldout_{name}": value for name, value in figures.items()}


def evaluate_yardstick(
    evaluator: Evaluator,
    examples: Examples,
    at_most: int | None,
    figures: dict[str, float] | None = None,
) -> dict[str, float]:
    """Return the figures of the yardstick, by their names in YARDSTICK.

    figures: those of an evaluation with the yardstick's masks, if there was one.
    """
    if not len(examples.heldout):
        return {}
    if figures is None:
        figures = evaluator.evaluate(examples.of_heldout(at_most, yardstick=True))
    return {new: figures[name] for name, new in YARDSTICK.items() if name in figures}
