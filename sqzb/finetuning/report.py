"""The overview of own data before finetuning, and the closing table of finetuning and `sqzb eval`."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from sqzb import console
from sqzb.data.dataset import DataSet, Example
from sqzb.data.overview import concerns, label_rows, overview, sentences, split_rows
from sqzb.data.own import OwnData
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import majority, together
from sqzb.finetuning.texts import TextFigures

MANY_CUT = 0.1  # share of the examples from which a cut is worth a warning
MANY_UNKNOWN = 0.03  # share of the tokens from which unknown tokens are


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


def print_own_data(
    data: OwnData, splits: Mapping[str, Sequence[Example]], texts: TextFigures, max_length: int
) -> None:
    """Print what is to be trained on, and warn of what looks wrong.

    splits: the examples by split.
    texts: figures of the training texts.
    max_length: tokens to which examples are cut.
    """
    seen = overview(data, splits)
    for line in sentences(seen):
        console.out.print(Text(line))
    console.table("Examples", *split_rows(seen))
    console.table("Labels", *label_rows(seen))

    cut, unknown = texts.share_cut(max_length), texts.share_unknown
    console.out.print(
        f"tokens in an example: median {texts.percentile(50):,}, 95 % have up to "
        f"{texts.percentile(95):,}, the longest has {texts.lengths.max():,}; max_length "
        f"{max_length} cuts {cut:.1%} of the examples; {unknown:.1%} of the tokens are [UNK]"
    )
    for concern in concerns(seen):
        console.warn(concern)
    if cut > MANY_CUT:
        console.warn(
            f"{cut:.1%} of the training examples are cut to {max_length} tokens: the model does not "
            f"see the rest. A higher max_length, up to {texts.lengths.max():,}, keeps more, and takes "
            "longer."
        )
    if unknown > MANY_UNKNOWN:
        console.warn(
            f"{unknown:.1%} of the tokens are [UNK]: the model's vocabulary does not know them, so it "
            "cannot tell them apart. Start from a model with a vocabulary for this language and "
            "these characters."
        )
