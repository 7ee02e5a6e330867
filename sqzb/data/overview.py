"""The overview of own data before training: examples, columns, labels and oddities."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqzb.console import counted
from sqzb.data.columns import KIND_OPTION, LABEL_OPTION, TEXT_OPTION
from sqzb.data.dataset import Example, Kind, Label, Labels, Number, Tags, empty_texts, in_common
from sqzb.data.formats.common import listed, one_line
from sqzb.data.labels import kind_name
from sqzb.data.own import OwnData

FIRST_EXAMPLES = 3
MOST_LABELS = 20  # rows of the table of labels
LONGEST_TEXT = 100  # characters of a text that is shown

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class SplitFigures:
    """Counts of a split.

    examples: all of them.
    empty: examples with an empty text.
    duplicates: examples with the texts of an earlier example.
    contradictory: the `duplicates` whose label differs from the earlier example's.
    in_train: examples with the texts of a training example; 0 for the training split.
    labels: examples by label index, or words of tags; empty if labels are numbers or withheld.
    numbers: lowest, mean and highest; None if labels are not numbers, or are withheld.
    """

    examples: int
    empty: int
    duplicates: int
    contradictory: int
    in_train: int
    labels: Mapping[int, int]
    numbers: tuple[float, float, float] | None


@dataclass(frozen=True)
class Overview:
    """The facts about own data to look at before training.

    text, label: the columns.
    recognised: which of "text", "label" and "kind" were not given.
    held_out: share of the training examples that is held out; 0.0 with validation files.
    first: the first training examples.
    splits: figures by split, the training split first.
    """

    text: tuple[str, ...]
    label: str
    kind: Kind
    recognised: tuple[str, ...]
    held_out: float
    first: tuple[Example, ...]
    splits: Mapping[str, SplitFigures]


def overview(data: OwnData, splits: Mapping[str, Sequence[Example]]) -> Overview:
    """Return the overview of own data.

    splits: the examples by split, with "train" among them.
    """
    figures = {}
    for name, examples in splits.items():
        train = () if name == "train" else splits["train"]
        figures[name] = _figures(data.kind, examples, train)
    return Overview(
        text=data.known.text,
        label=data.known.label,
        kind=data.kind,
        recognised=data.known.recognised,
        held_out=data.files.holdout if data.holds_out else 0.0,
        first=tuple(splits["train"][:FIRST_EXAMPLES]),
        splits=figures,
    )


def _figures(kind: Kind, examples: Sequence[Example], train: Sequence[Example]) -> SplitFigures:
    labels_by_texts: defaultdict[tuple[str, str | None], list[Label | None]] = defaultdict(list)
    for example in examples:
        labels_by_texts[example.text_a, example.text_b].append(example.label)
    duplicates = contradictory = 0
    for labels in labels_by_texts.values():
        duplicates += len(labels) - 1
        contradictory += sum(label != labels[0] for label in labels)

    values = [example.label for example in examples if example.label is not None]
    numbers = None
    counts: Counter[int] = Counter()
    if isinstance(kind, Number):
        floats = [value for value in values if isinstance(value, (int, float))]
        if floats:
            numbers = (min(floats), sum(floats) / len(floats), max(floats))
    else:
        for value in values:
            counts.update(value if isinstance(value, tuple) else [int(value)])
    return SplitFigures(
        examples=len(examples),
        empty=empty_texts(examples),
        duplicates=duplicates,
        contradictory=contradictory,
        in_train=in_common(train, examples),
        labels=counts,
        numbers=numbers,
    )


# For printing


def sentences(overview: Overview) -> list[str]:
    """Return the columns, the kind, the held-out share and the first examples, a line each."""
    text = ",".join(overview.text)
    noted = {"text": TEXT_OPTION, "label": LABEL_OPTION, "kind": KIND_OPTION}
    notes = dict.fromkeys(noted, "")
    for name in overview.recognised:
        notes[name] = f" (recognised; change it with {noted[name]})"
    kind = {
        "classes": "one class of each text",
        "number": "a number",
        "labels": "several labels of each text",
        "tokens": "a tag of each word",
    }[kind_name(overview.kind)]
    if overview.kind.names:
        kind += f", {len(overview.kind.names):,} names"
    lines = [
        f"text: {text}{notes['text']}",
        f"label: {overview.label}{notes['label']}",
        f"kind: {kind}{notes['kind']}",
    ]
    if overview.held_out:
        lines.append(
            f"validation: {overview.held_out:.0%} of the training files, chosen by a hash of the "
            "texts (change it with data.holdout, or give --validation)"
        )
    for number, example in enumerate(overview.first, 1):
        texts = [example.text_a, *([] if example.text_b is None else [example.text_b])]
        shown = " | ".join(_cut(text) for text in texts)
        lines.append(f"{number}. {shown} → {shown_label(overview.kind, example.label)}")
    return lines


def _cut(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def shown_label(kind: Kind, label: Label | None) -> str:
    """Return a label as a person reads it."""
    if label is None:
        return "(withheld)"
    if isinstance(label, tuple):
        names = [one_line(kind.names[index]) for index in label]
        between = " " if isinstance(kind, Tags) else ", "
        return between.join(names) or "(none)"
    return f"{label:g}" if isinstance(kind, Number) else one_line(kind.names[int(label)])


def split_rows(overview: Overview) -> tuple[tuple[str, ...], Rows]:
    """Return the header and the rows of a table of splits."""
    header = ("split", "examples", "empty texts", "duplicates", "texts in train")
    rows = []
    for name, split in overview.splits.items():
        in_train = "" if name == "train" else f"{split.in_train:,}"
        counts = (split.examples, split.empty, split.duplicates)
        rows.append((name, *(f"{count:,}" for count in counts), in_train))
    return header, rows


def label_rows(overview: Overview) -> tuple[tuple[str, ...], Rows]:
    """Return the header and the rows of a table of labels, with counts and shares by split.

    Numbers have their lowest, mean and highest. Of many labels the commonest are there.
    """
    if isinstance(overview.kind, Number):
        rows = []
        for name, split in overview.splits.items():
            if split.numbers is not None:
                rows.append((name, *(f"{number:.6g}" for number in split.numbers)))
        return ("split", "lowest", "mean", "highest"), rows

    labelled = {name: split for name, split in overview.splits.items() if split.labels}
    indices: Sequence[int] = range(len(overview.kind.names))
    if len(indices) > MOST_LABELS:
        train = overview.splits["train"].labels
        indices = sorted(indices, key=lambda index: -train.get(index, 0))[:MOST_LABELS]
    rows = []
    for index in indices:
        cells = []
        for split in labelled.values():
            # Several labels have shares of the examples, tags have shares of the words.
            total = (
                split.examples if isinstance(overview.kind, Labels) else sum(split.labels.values())
            )
            count = split.labels.get(index, 0)
            cells.append(f"{count:,} ({count / total:.1%})")
        rows.append((overview.kind.names[index], *cells))
    return ("label", *labelled), rows


def concerns(overview: Overview) -> list[str]:
    """Return sentences to warn with."""
    warnings = []
    for name, split in overview.splits.items():
        if split.in_train:
            warnings.append(
                f"{split.in_train:,} of {split.examples:,} {name} examples have the texts of "
                "training examples, so their score is too good."
            )
        if split.contradictory:
            warnings.append(
                f"{counted(split.contradictory, f'{name} example')} "
                f"{'repeats' if split.contradictory == 1 else 'repeat'} the texts of an earlier "
                "example with another label."
            )
        absent = [
            label for index, label in enumerate(overview.kind.names) if not split.labels.get(index)
        ]
        if name == "validation" and absent:
            warnings.append(f"No {name} example has the label {listed(absent)}.")
    return warnings
