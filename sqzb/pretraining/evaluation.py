"""The losses and accuracies of a pretrained model on the held-out part of its corpus."""

from sqzb.pretraining.batches import Examples
from sqzb.training.engine import Evaluator

# For each loss of the model, the entry of a micro-batch that holds its labels.
LABELS = {"mlm": "mlm_labels", "sop": "sop_labels"}


def evaluate_heldout(
    evaluator: Evaluator, examples: Examples, at_most: int | None
) -> dict[str, float]:
    """Return heldout_NAME_loss (nats) and heldout_NAME_accuracy, the same in every process.

    at_most: number of held-out sequences to use, None for all.
    Without a held-out part there are no figures.
    """
    if not len(examples.heldout):
        return {}
    figures = evaluator.evaluate(examples.of_heldout(at_most))
    return {f"heldout_{name}": value for name, value in figures.items()}
