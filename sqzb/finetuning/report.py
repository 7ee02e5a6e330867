"""The closing table of finetuning and of `sqzb eval`."""

from collections.abc import Mapping

from sqzb import console
from sqzb.data.dataset import DataSet
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import majority, together


def print_validation_report(
    title: str, data: DataSet, figures: dict[str, float], validation: Mapping[str, Encoded]
) -> None:
    """Print the figures beside those of a model that always gives the commonest label.

    validation: the examples by split.
    """
    baseline = together({split: majority(data, encoded) for split, encoded in validation.items()})
    rows = [(name, f"{value:.1%}", f"{baseline[name]:.1%}") for name, value in figures.items()]
    console.table(
        title, (f"validation ({count_examples(validation)})", "measured", "majority"), rows
    )


def count_examples(splits: Mapping[str, Encoded]) -> str:
    """Return the number of examples of each split, as 9,815 + 9,832."""
    return " + ".join(f"{len(encoded.ids):,}" for encoded in splits.values())
