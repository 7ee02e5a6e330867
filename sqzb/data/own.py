"""The user's own labelled data: from files and columns to a data set."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqzb.console import counted
from sqzb.data.columns import Columns, check_same, choose
from sqzb.data.dataset import (
    Classes,
    DataSet,
    Example,
    Kind,
    Label,
    Labels,
    Number,
    Split,
    Tags,
    empty_texts,
)
from sqzb.data.formats import tables
from sqzb.data.formats.common import Table
from sqzb.data.formats.hub import PREFIX, without_split
from sqzb.data.holdout import held_out
from sqzb.data.known import Known, KnownFile
from sqzb.data.labels import LabelReader
from sqzb.data.metrics.entities import scheme_of
from sqzb.data.recognition import learn_kind, mixed_labels
from sqzb.data.records import Record, check_no_numbers, is_no_label, read_records
from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.hub import COMMIT

KindName = Literal["classes", "number", "labels", "tokens"]

# Names of functions in sqzb.data.metrics, by kind. The first chooses the best model by default.
METRICS: dict[type[Kind], tuple[str, ...]] = {
    Classes: ("macro_f1", "weighted_f1", "accuracy", "matthews"),
    Number: ("pearson", "spearman", "mae", "rmse"),
    Labels: ("micro_f1", "macro_f1", "subset_accuracy"),
    Tags: ("entity_f1", "token_accuracy"),
}


@dataclass(frozen=True)
class OwnFiles:
    """Files of labelled data, and how to read them.

    train, validation, test  files, folders of shards, globs, or
        hub:owner/name[@revision][:config[:split]]
    text       columns of the texts: one, or two for pairs; empty: they are recognised
    label      column of the labels; None: it is recognised
    kind       of the labels; None: it is recognised
    separator  between labels, where several labels are one text
    holdout    share of the training examples to validate on where there is no validation file
    split      of a Hub data set to train on; its splits validation and test are for the others
    revision   of a Hub data set
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    label: str | None = None
    kind: KindName | None = None
    separator: str = ","
    holdout: float = 0.1
    split: str = "train"
    revision: str | None = None

    def of(self, split: str) -> tuple[str, ...]:
        """Return what was given for a split: train, validation or test."""
        given: tuple[str, ...] = getattr(self, split)
        return given


@dataclass(frozen=True, kw_only=True)
class OwnData(DataSet):
    """A data set of the user's own, with what a run has to remember of it."""

    files: OwnFiles
    known: Known

    @property
    def holds_out(self) -> bool:
        """Whether the validation split is a share of the training files."""
        return _holds_out(self.files)


def open_own(files: OwnFiles, known: Known | None = None) -> OwnData:
    """Return the user's own data as a data set.

    Without `known`, columns and kind are recognised where they are not given, and all splits are
    read once, so that an error in any of them is found before training. A split that was read
    waits for the first call of `read`. With `known`, a split is read when it is asked for, and its
    files must be those that `known` has for this split.

    Examples of the test split have labels only where its files have the column.

    Raises:
        UserError: The data cannot be read, or breaks a rule; the message has the file and the line.
    """
    if known is not None:
        return _data_set(files, known, {})
    if not files.train:
        raise UserError("There is no training data. Give files with --train.")
    if not 0 <= files.holdout < 1:
        raise UserError(f"data.holdout is {files.holdout:g}. Give a share from 0 to below 1.")

    # The training files: columns, kind and examples.
    tokens = files.kind == "tokens"
    opened = _tables(files, "train", None)
    columns = choose(opened[0], files.text, files.label, tokens)
    records = list(_records(opened, columns, tokens, opened[0].path))
    check_no_numbers(records, columns)
    kind = learn_kind(records, files.kind, files.separator)
    train = _examples(records, LabelReader(kind, files.separator))
    ready = _divided(train, files) if _holds_out(files) else {"train": train}
    known_files = {"train": _known_files(opened, records)}
    is_guessed = isinstance(kind, Classes) and files.kind is None
    mixed = mixed_labels(records) if is_guessed else []

    recognised = (*columns.recognised, *(() if files.kind else ("kind",)))
    known = Known(
        data_set_name(files.train[0]),
        columns.text,
        str(columns.label),
        recognised,
        kind,
        known_files,
    )

    # The other splits.
    for split in ("validation", "test"):
        if files.of(split):
            opened = _tables(files, split, None)
            records = list(_split_records(opened, split, known))
            ready[split] = _examples(records, _reader(split, records, known, files))
            known_files[split] = _known_files(opened, records)
    return _data_set(files, known, ready, mixed)


def _data_set(
    files: OwnFiles, known: Known, ready: dict[str, list[Example]], mixed: Sequence[str] = ()
) -> OwnData:
    """Return the data set. The splits in `ready` are given away at their first reading.

    mixed: warnings about the training examples.
    """

    def read(split: str) -> Split:
        examples = ready.pop(split) if split in ready else _read(split, files, known)
        others = mixed if split == "train" else ()
        return Split(examples, [*others, *_warnings(known.name, split, examples)])

    has_validation = bool(files.validation) or _holds_out(files)
    metrics = metrics_of(known.kind)
    return OwnData(
        name=known.name,
        kind=known.kind,
        texts=len(known.text),
        metrics=metrics,
        read=read,
        train_split="train" if files.train else None,
        validation_splits=("validation",) if has_validation else (),
        test_splits=("test",) if files.test else (),
        on_disk=not any(given.startswith(PREFIX) for given in files.train),
        score_metrics=metrics[:1],
        files=files,
        known=known,
    )


def metrics_of(kind: Kind) -> tuple[str, ...]:
    """Return the metrics to measure, the one that chooses the best model first."""
    if isinstance(kind, Tags) and scheme_of(kind.names) is None:
        return ("token_accuracy",)
    return METRICS[type(kind)]


# Reading a split


def _holds_out(files: OwnFiles) -> bool:
    return bool(files.train) and not files.validation and files.holdout > 0


def _read(split: str, files: OwnFiles, known: Known) -> list[Example]:
    """Read a split of which columns and labels are known."""
    from_train = split == "validation" and _holds_out(files)
    source = "train" if from_train else split
    if source not in ("train", "validation", "test") or not files.of(source):
        raise UserError(f"{known.name} has no split {split}. Give its files with --{source}.")
    opened = _tables(files, source, known)
    _check_same_files(opened, source, known)
    records = list(_split_records(opened, source, known))
    examples = _examples(records, _reader(source, records, known, files))
    if source == "train" and _holds_out(files):
        return _divided(examples, files)[split]
    return examples


def _tables(files: OwnFiles, split: str, known: Known | None) -> list[Table]:
    """Open the files of a split."""
    commits = {}
    if known is not None and files.revision is None:
        for file in known.files.get(split, ()):
            if _is_hub(file.path) and COMMIT.fullmatch(file.sha256):
                commits[without_split(file.path)] = file.sha256
    is_tags = files.kind == "tokens" or (known is not None and isinstance(known.kind, Tags))
    return tables(
        files.of(split),
        option=_option(files, split, known),
        split=files.split if split == "train" else split,
        revision=files.revision,
        tokens=is_tags,
        commits=commits,
    )


def _option(files: OwnFiles, split: str, known: Known | None) -> str:
    """Return the option that names the files of a split, for messages."""
    if known is None:
        return f"--{split}"
    # `sqzb eval RUN --data` has no training files. `sqzb eval RUN` takes the paths of the run,
    # which a resume renews.
    return f"sqzb finetune --resume auto --{split}" if files.train else "--data"


def _is_hub(path: str) -> bool:
    return path.startswith(PREFIX)


def _split_records(opened: Sequence[Table], split: str, known: Known) -> Iterator[Record]:
    """Yield the records of a split of which the columns are known."""
    columns = Columns(known.text, known.label)
    if split == "test" and not any(known.label in table.columns for table in opened):
        columns = Columns(known.text, None)
    train = known.files.get("train", ())
    first = train[0].path if train else "The training data"
    yield from _records(opened, columns, isinstance(known.kind, Tags), first)


def _records(
    opened: Sequence[Table], columns: Columns, tokens: bool, first: str
) -> Iterator[Record]:
    """Yield the records of tables, which must all have the columns.

    first: the file that is known to have them, for messages.
    """
    for table in opened:
        check_same(table, columns, first)
    yield from read_records(opened, columns, tokens)


def _reader(
    split: str, records: Sequence[Record], known: Known, files: OwnFiles
) -> LabelReader | None:
    """Return the reader of a split's labels; None for a test split without labels."""
    if split == "test" and all(is_no_label(record.label) for record in records):
        return None
    return LabelReader(known.kind, files.separator)


def _examples(records: Sequence[Record], reader: LabelReader | None) -> list[Example]:
    """Return records as examples.

    reader: None where the labels are withheld.
    """
    examples = []
    for row, record in enumerate(records):
        text_a, text_b = (*record.texts, None)[:2]
        label: Label | None = None if reader is None else reader.label(record)
        examples.append(Example(str(text_a), text_b, label, row, record.words))
    return examples


def _divided(examples: Sequence[Example], files: OwnFiles) -> dict[str, list[Example]]:
    """Return the examples to train on and those that are held out."""
    ready: dict[str, list[Example]] = {"train": [], "validation": []}
    for example, is_held_out in zip(examples, held_out(examples, files.holdout), strict=True):
        ready["validation" if is_held_out else "train"].append(example)
    if not ready["validation"]:
        raise UserError(
            f"{files.train[0]} has too few examples to hold some out for validation. Give "
            "examples with --validation."
        )
    return ready


def _warnings(name: str, split: str, examples: Sequence[Example]) -> list[str]:
    n = empty_texts(examples)
    if n == 0:
        return []
    return [
        f"{name}'s {split} split has an empty text in {n:,} of its "
        f"{counted(len(examples), 'example')}: {'it is' if n == 1 else 'they are'} kept."
    ]


# Names and files that a run remembers


def data_set_name(given: str) -> str:
    """Return a name for the data set of a file, which can be that of a folder."""
    name = re.split("[:@]", given.removeprefix(PREFIX))[0] if _is_hub(given) else given
    stem = Path(name).name if _is_hub(given) else Path(name).name.partition(".")[0]
    return re.sub(r"[^\w.-]+", "_", stem).strip("_.") or "data"


def _known_files(opened: Sequence[Table], records: Sequence[Record]) -> tuple[KnownFile, ...]:
    rows = Counter(record.table.path for record in records)
    return tuple(KnownFile(table.path, _hash(table), rows[table.path]) for table in opened)


def _hash(table: Table) -> str:
    return table.commit if _is_hub(table.path) else sha256(Path(table.path))


def _check_same_files(opened: Sequence[Table], split: str, known: Known) -> None:
    """Check that files have the content that they had when the run began.

    Raises:
        UserError: A file has changed, or there are more or fewer files.
    """
    before = known.files.get(split)
    if before is None:
        return
    if len(before) != len(opened):
        raise UserError(
            f"The {split} split had {counted(len(before), 'file')} when the run began, and has "
            f"{len(opened)} now: {', '.join(table.path for table in opened[:5])}. Give the same "
            f"with --{split}."
        )
    for file, table in zip(before, opened, strict=True):
        if _hash(table) != file.sha256:
            raise UserError(
                f"{table.path} is not the file {file.path} with which the run began: its sha256 is "
                f"another. Put the file back or give its new path with --{split}; to score other "
                "examples, use `sqzb eval RUN --data FILE`."
            )
