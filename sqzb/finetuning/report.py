"""The overview of own data, and the closing tables of finetuning and of `sqzb eval`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sqzb import console
from sqzb.data.dataset import Classes, DataSet, Example, Kind, Labels, Number, Tags
from sqzb.data.metrics import LOWER_IS_BETTER, shown
from sqzb.data.metrics.classes import ClassFigures, per_class
from sqzb.data.metrics.entities import per_type, scheme_of
from sqzb.data.overview import concerns, label_rows, overview, sentences, split_rows
from sqzb.data.own import OwnData
from sqzb.finetuning.calibration import LEAST_EXAMPLES, too_few_to_calibrate
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import (
    Logits,
    Measured,
    decide,
    majority,
    tags_by_text,
    together,
)
from sqzb.finetuning.texts import MANY_CUT, TextFigures
from sqzb.tokenizer import MANY_UNKNOWN
from sqzb.training.ending import print_ending

TEST_TITLE = "Test examples, which were not used to train or to choose the model"
MOST_ROWS = 50  # in a table
UNITS: dict[type[Kind], str] = {Classes: "class", Labels: "label", Tags: "tag"}


def print_validation_report(
    title: str,
    data: DataSet,
    figures: dict[str, float],
    validation: Mapping[str, Encoded],
    name: str = "validation",
) -> None:
    """Print the figures beside those of a model that always predicts the most common label.

    validation: the examples by split.
    name: of these examples, for the header.
    """
    scored = data.score_metrics or data.metrics
    baseline = together({split: majority(data, encoded) for split, encoded in validation.items()})
    rows = []
    for metric, value in figures.items():
        constant = baseline.get(metric)
        majority_text = "-" if constant is None else shown(metric, constant, scored)
        rows.append((_row_name(metric, scored), shown(metric, value, scored), majority_text))
    console.table(title, (f"{name} ({count_examples(validation)})", "measured", "majority"), rows)
    if figures["score"] <= baseline["score"]:
        console.warn(
            "The model is no better than one that always predicts the most common label. More "
            "epochs, another learning rate (lr) or more examples may help."
        )


def print_result(
    title: str,
    data: DataSet,
    validation: Measured,
    test: Measured,
    thresholds: Sequence[float] | None,
) -> None:
    """Print the figures of a finished run, those of labelled test examples last.

    test: without splits where no test examples have labels.
    thresholds: of several labels.
    """
    print_validation_report(title, data, validation.figures, validation.splits)
    print_details(data, validation.logits, validation.splits, thresholds)
    if isinstance(data, OwnData) and too_few_to_calibrate(data.kind, validation.splits):
        console.out.print(
            f"No calibration: its temperature needs {LEAST_EXAMPLES} validation examples."
        )
    if test.splits:
        print_validation_report(TEST_TITLE, data, test.figures, test.splits, "test")
        print_details(data, test.logits, test.splits, thresholds)


def print_next_commands(run: Path, data: DataSet) -> None:
    """Print where the model is, what it took, and the commands that use it."""
    texts = ["TEXT"] if data.texts == 1 else ["TEXT", "SECOND"]
    print_ending(
        run / "final",
        [run],
        ["sqzb", "eval", run],
        ["sqzb", "predict", run, *texts],
        ["sqzb", "report", run],
    )


def _row_name(name: str, scored: Sequence[str]) -> str:
    """Return the name of a figure; the name of a score tells that errors count negatively."""
    errors = [metric for metric in scored if metric in LOWER_IS_BETTER]
    if name == "score" and errors:
        return f"score (minus {' and '.join(errors)}: less is better)"
    return name


def print_details(
    data: DataSet,
    logits: Mapping[str, Logits],
    validation: Mapping[str, Encoded],
    thresholds: Sequence[float] | None = None,
) -> None:
    """Print the figures of each class, label or type of entity of own data.

    logits, validation: by split.
    thresholds: of several labels.
    """
    if not isinstance(data, OwnData):
        return
    for split, encoded in validation.items():
        predictions = decide(data.kind, logits[split], thresholds)
        print_figures(
            split, data.kind, figures_by_name(data.kind, predictions, encoded), thresholds
        )


def figures_by_name(
    kind: Kind, predictions: NDArray[Any], encoded: Encoded
) -> dict[str, ClassFigures]:
    """Return the figures of each class or label, or of each type of entity; none of numbers.

    predictions: in the form of encoded labels.
    """
    if isinstance(kind, Number):
        return {}
    scheme = scheme_of(kind.names) if isinstance(kind, Tags) else None
    if scheme is None:
        figures = per_class(predictions, encoded.labels, kind.outputs)
        return dict(zip(kind.names, figures, strict=True))
    predicted, true = (tags_by_text(kind, tags, encoded) for tags in (predictions, encoded.labels))
    return per_type(predicted, true, scheme)


def print_figures(
    split: str,
    kind: Kind,
    figures: Mapping[str, ClassFigures],
    thresholds: Sequence[float] | None = None,
) -> None:
    """Print a table with a row for each name, the most common first if there are too many."""
    if not figures:
        return
    names = list(figures)
    is_entities = isinstance(kind, Tags) and scheme_of(kind.names) is not None
    unit = "entity" if is_entities else UNITS[type(kind)]
    title = f"{split}, by {unit}"
    if len(names) > MOST_ROWS:
        names = sorted(names, key=lambda name: -figures[name].support)[:MOST_ROWS]
        title += f": the {MOST_ROWS} commonest of {len(figures):,}"
    by_name = dict(zip(kind.names, thresholds, strict=True)) if thresholds else {}
    rows = []
    for name in names:
        precision, recall, f1, support = figures[name]
        row = (name, f"{precision:.1%}", f"{recall:.1%}", f"{f1:.1%}", f"{support:,}")
        rows.append((*row, f"{by_name[name]:.2f}") if by_name else row)
    columns = (unit, "precision", "recall", "F1", "support")
    console.table(title, (*columns, "from probability") if by_name else columns, rows)


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
        console.out.print(line)
    console.table("Examples", *split_rows(seen))
    console.table("Labels", *label_rows(seen))

    cut, unknown = texts.share_cut(max_length), texts.share_unknown
    console.out.print(
        f"tokens in an example: median {texts.percentile(50):,}, 95% have up to "
        f"{texts.percentile(95):,}, the longest has {texts.lengths.max():,}; max_length "
        f"{max_length} cuts {cut:.1%} of the examples; {unknown:.1%} of the tokens are [UNK]"
    )
    for concern in concerns(seen):
        console.warn(concern)
    if cut > MANY_CUT:
        console.warn(
            f"{cut:.1%} of the training examples are cut to {max_length} tokens: the model does "
            f"not see the rest. A higher max_length, up to {texts.lengths.max():,}, keeps more, "
            "and takes longer."
        )
    if unknown > MANY_UNKNOWN:
        console.warn(
            f"{unknown:.1%} of the tokens are [UNK]: the model's vocabulary does not know them, "
            "so it cannot tell them apart. Start from a model with a vocabulary for this language "
            "and these characters."
        )
