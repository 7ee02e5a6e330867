"""GLUE's examples, from GLUE's own files or from the Hub; labels in the order of `task.labels`."""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqzb.console import counted
from sqzb.data.dataset import DataSet, Example, Split, empty_texts
from sqzb.errors import UserError
from sqzb.glue.tasks import HUB_DATASET, SCORE_RANGE, Task, is_test, task
from sqzb.hub import asked_once, hub_id, note, offline

MSR_FILES = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
MSR_DEV_IDS = "dev_ids.tsv"
MSR_ID_COLUMNS = ("#1 ID", "#2 ID")
MSR_FOLDER = "original"
ABOVE = ("glue_data", "glue")  # folders that may lie between --glue-dir and the task's


def open_task(name: str, folder: Path | None) -> DataSet:
    """Return a GLUE task as a data set, which reads a split when it is first needed.

    folder: GLUE's own files or a revision of the Hub's copy, as `load_split` takes it; None: the
    Hub's newest copy.

    Raises:
        UserError: there is no such task. Reading a split raises it as `load_split` does.
    """
    chosen = task(name)
    return DataSet(
        name=chosen.name,
        kind=chosen.kind,
        texts=len(chosen.columns),
        metrics=chosen.metrics,
        read=lambda split: _with_warnings(chosen, split, folder),
        train_split="train" if "train" in chosen.files else None,
        validation_splits=chosen.validation_splits,
        test_splits=chosen.test_splits,
        on_disk=folder is not None and not _is_on_hub(folder),
        model_of=chosen.model_of,
    )


def _with_warnings(chosen: Task, split: str, folder: Path | None) -> Split:
    examples = load_split(chosen, split, folder)
    warnings = [differing_count(chosen, split, examples), empty_sentences(chosen, split, examples)]
    return Split(examples, [warning for warning in warnings if warning is not None])


def load_split(task: Task, split: str, folder: Path | None = None) -> list[Example]:
    """Return all examples of a split, in the order of their source.

    split: a key of `task.files`, such as "train", "validation" or "test".
    folder: the folder with GLUE's own files of the task, its parent, or the parent of a glue_data
    folder. None: the Hub's nyu-mll/glue; nyu-mll/glue@revision: a revision of it.

    Labels of a test split are never returned, even if a file has them. Quotes have no meaning.
    Accepted are a byte order mark, CRLF, extra columns, empty sentences and any number of examples
    (`differing_count`).

    Raises:
        UserError: the data cannot be read, or breaks GLUE's rules; with the file and line.
    """
    if split not in task.files:
        instead = f" Finetune {task.model_of}, whose model predicts it." if task.model_of else ""
        raise UserError(
            f"GLUE's {task.name} has no split {split!r}. Its splits are "
            f"{', '.join(task.files)}.{instead}"
        )
    if folder is None or _is_on_hub(folder):
        return _from_hub(task, split, None if folder is None else str(folder))
    folder = _task_folder(task, folder)
    if _is_msr(task, folder):
        return _from_msr(task, split, folder)
    header = () if is_test(split) else task.header
    return _examples(task, split, _read_table(task, _file(task, split, folder), header))


def differing_count(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """Return a warning if the number of examples differs from GLUE's, as in a truncated file."""
    n, expected = len(examples), task.counts[split]
    if n == expected:
        return None
    part = "the split is incomplete" if n < expected else "the split has more than GLUE's own"
    return f"{task.name}'s {split} split has {n:,} examples, and GLUE's has {expected:,}: {part}."


def empty_sentences(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """Return a warning if a text of an example is empty, or only white space."""
    n = empty_texts(examples)
    if n == 0:
        return None
    total = f"{len(examples):,}"
    return (
        f"{task.name}'s {split} split has an empty sentence in {n:,} of its {total} examples. "
        "These examples are kept."
    )


def _example(sentences: Sequence[str], label: int | float | None, row: int) -> Example:
    return Example(sentences[0], sentences[1] if len(sentences) > 1 else None, label, row)


# GLUE's own files


class _Table(NamedTuple):
    """A file of tab-separated values.

    lines: the rows, undecoded; `lines[i]` is line `first_line + i` of the file.
    ended: whether the last line ends with a line break.
    """

    task: Task
    path: Path
    columns: Sequence[str]
    lines: list[bytes]
    first_line: int
    ended: bool

    def where(self, row: int) -> str:
        """Return the file and line of a row, as FILE:LINE."""
        return f"{self.path}:{self.first_line + row}"

    def select(
        self, wanted: Sequence[str], skip_short: bool = False
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield each row's number and its cells in the wanted columns.

        Other columns may be missing or extra. With `skip_short`, rows that lack a wanted column are
        skipped.

        Raises:
            UserError: a column is missing, or a row lacks one.
        """
        indices = [self._index(column) for column in wanted]
        for row, line in enumerate(self.lines):
            cells = _cells(line, self.where(row))
            if len(cells) > max(indices):
                yield row, [cells[index] for index in indices]
            elif not skip_short:
                cut = row == len(self.lines) - 1 and not self.ended
                raise UserError(
                    f"{self.where(row)}: the row has {counted(len(cells), 'column')} and "
                    f"{max(indices) + 1} are needed (columns are separated by tabs: "
                    f"{', '.join(self.columns)}). "
                    f"{'The file was cut short here: get' if cut else 'Correct the row, or get'} "
                    "the file again."
                )

    def _index(self, column: str) -> int:
        if self.columns.count(column) > 1:
            first = self.columns.index(column)
            second = self.columns.index(column, first + 1)
            raise UserError(
                f"{self.path}:1: columns {first + 1} and {second + 1} are both called {column!r}. "
                "Give each a name of its own, or get the file again."
            )
        if column in self.columns:
            return self.columns.index(column)
        present = ", ".join(map(repr, self.columns))
        problem = f"there is no column {column!r}; the columns found are {present}"
        if column == self.task.file_label and set(self.task.file_columns) <= set(self.columns):
            raise UserError(
                f"{self.path}:1: {problem}. This is a test file, whose labels GLUE does not "
                f"publish, or lacks its labels: put {self.task.name}'s own file for this split in "
                "its place."
            )
        raise UserError(
            f"{self.path}:1: {problem}. Check that this is GLUE's own file for {self.task.name}, "
            "with its header line and with tabs between the columns."
        )


def _read_table(task: Task, path: Path, header: Sequence[str] = ()) -> _Table:
    """Read a file whose first line names its columns.

    header: the columns of a file without such a line; a first line that names them is accepted too.

    Lines end at LF or CRLF only: text mode and str.splitlines would also split at other separators,
    which the text may contain. Lines are decoded one by one, because a whole file with one rare
    character would take four times its size.
    """
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {_remedy(task)}") from error
    ended = raw.endswith(b"\n")
    lines = raw.split(b"\n")
    while lines and lines[-1] in (b"", b"\r"):
        lines.pop()
    first = [name.strip() for name in _cells(lines[0], f"{path}:1")] if lines else []
    headed = not header or set(task.file_columns) <= set(first)
    columns, lines = (first, lines[1:]) if headed else (header, lines)
    if not lines:
        raise UserError(
            f"{path} {'has a header line but no examples' if first else 'is empty'}. "
            f"{_remedy(task)}"
        )
    return _Table(task, path, columns, lines, 2 if headed else 1, ended)


def _cells(line: bytes, where: str) -> list[str]:
    """Return the cells of a line; quotes have no meaning (csv.QUOTE_NONE)."""
    try:
        return line.removesuffix(b"\r").decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            file = where.rpartition(":")[0]
            raise UserError(
                f"{file} is UTF-16. Convert the file (iconv -f UTF-16 -t UTF-8 {file} > NEW), or "
                "get it again."
            ) from error
        raise UserError(
            f"{where}: the file is not UTF-8 (byte {line[error.start]:#04x}, after {error.start} "
            "others of the line). It is probably Windows-1252. Convert it (iconv -f WINDOWS-1252 "
            f"-t UTF-8 {where.rpartition(':')[0]} > NEW), or get it again."
        ) from error


def _examples(task: Task, split: str, table: _Table) -> list[Example]:
    examples = list(_unlabelled(task, table) if is_test(split) else _labelled(task, table))
    if not examples:
        raise UserError(f"{table.path} has no row with all its columns. {_remedy(task)}")
    return examples


def _labelled(task: Task, table: _Table) -> Iterator[Example]:
    for row, (*sentences, label) in table.select(
        (*task.file_columns, task.file_label), task.skip_short
    ):
        yield _example(sentences, _label(task, label, table.where(row)), row)


def _unlabelled(task: Task, table: _Table) -> Iterator[Example]:
    if task.file_index not in table.columns:
        for row, sentences in table.select(task.file_columns, task.skip_short):
            yield _example(sentences, None, row)
        return
    lines: dict[str, int] = {}
    for row, (*sentences, index) in table.select(
        (*task.file_columns, task.file_index), task.skip_short
    ):
        index = _whole(index)
        if not (index.isascii() and index.isdigit()):
            problem = "must be a whole number"
        elif index in lines:
            problem = f"is that of line {table.first_line + lines[index]} too"
        else:
            lines[index] = row
            yield _example(sentences, None, int(index))
            continue
        raise UserError(
            f"{table.where(row)}: the number in column {task.file_index!r} is {index!r}, and "
            f"{problem}. Correct the row, or get the file again."
        )


def _label(task: Task, value: str, where: str) -> int | float:
    """Return the index of a label, or the score.

    Labels are matched by what GLUE's files write, name or number, because code bases order the
    names differently.
    """
    if _whole(value) in task.file_labels:
        return task.file_labels.index(_whole(value))
    score = _score(value) if task.regression else None
    if score is not None:
        return score
    allowed = (
        "a number from {:g} to {:g}".format(*SCORE_RANGE)
        if task.regression
        else " or ".join(task.file_labels)
    )
    raise UserError(
        f"{where}: the label in column {task.file_label!r} is {value!r}, and must be {allowed}. "
        "Correct the row, or get the file again."
    )


def _whole(value: str) -> str:
    """Return a label or a number without spaces around it; 1.0, as spreadsheets have it, is 1."""
    return re.sub(r"(?<=[0-9])\.0+$", "", value.strip())


def _score(value: Any) -> float | None:
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if SCORE_RANGE[0] <= score <= SCORE_RANGE[1] else None


def _file(task: Task, split: str, folder: Path) -> Path:
    """Return the path of GLUE's own file of the split, under the first of its names that exists."""
    names = (task.files[split], *(task.other_files if is_test(split) else ()))
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def _task_folder(task: Task, given: Path) -> Path:
    """Return `given` itself or the folder below it that has one of the task's names.

    The folder may lie in `given`, or in a folder of it that is named in ABOVE.
    """
    names = {_plain(name) for name in task.folders}
    inside = _folders(task, given)
    candidates = list(inside)
    for above in inside:
        if above.name.lower() in ABOVE:
            candidates += _folders(task, above)
    for candidate in candidates:
        if _plain(candidate.name) in names:
            return candidate
    # The given path may be a symbolic link that has the task's name, or whose target has.
    if names & {_plain(given.absolute().name), _plain(given.resolve().name)}:
        return given
    raise UserError(
        f"{given} has no folder {' or '.join(task.folders)} (in any case). {_remedy(task)}"
    )


def _folders(task: Task, folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir()]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). {_remedy(task)}"
        ) from error


def _plain(name: str) -> str:
    """Return a name in a form in which STS-B, sts-b, STSB and sts_b are equal."""
    return name.lower().replace("-", "").replace("_", "")


def _layout(task: Task) -> str:
    others = f" (or {' or '.join(task.other_files)})" if task.other_files else ""
    if task.name == "mrpc":
        train, test = MSR_FILES["train"], MSR_FILES["test"]
        others = f" (or {train}, {MSR_DEV_IDS} and {test} in place of them all)"
    return (
        f"GLUE's own files for {task.name} are {', '.join(task.files.values())}{others} "
        f"in a folder {' or '.join(task.folders)}, and --glue-dir is this folder or its parent."
    )


def _remedy(task: Task) -> str:
    return (
        f"{_layout(task)} Get them from gluebenchmark.com/tasks, or leave out --glue-dir to take "
        f"{HUB_DATASET} from the Hub."
    )


# MRPC as Microsoft published it (Dolan & Brockett 2005): a file of GLUE lists the pairs of ids that
# are the validation split; Microsoft's train file holds both splits.


def _is_msr(task: Task, folder: Path) -> bool:
    """Return whether the folder has Microsoft's files and not GLUE's.

    The layout is chosen for the folder and not for each file: mixing both could put validation
    examples into train.
    """
    if task.name != "mrpc":
        return False
    return (
        _msr_file(folder, MSR_FILES["train"]).exists()
        and not (folder / task.files["train"]).exists()
    )


def _msr_file(folder: Path, name: str) -> Path:
    original = folder / MSR_FOLDER / name
    return original if original.exists() and not (folder / name).exists() else folder / name


def _from_msr(task: Task, split: str, folder: Path) -> list[Example]:
    table = _read_table(task, _msr_file(folder, MSR_FILES[split]))
    examples = _examples(task, split, table)
    if is_test(split):
        return examples
    validation = _validation_rows(
        table, _read_table(task, _msr_file(folder, MSR_DEV_IDS), header=MSR_ID_COLUMNS)
    )
    return [
        example for example in examples if (example.row in validation) == (split == "validation")
    ]


def _validation_rows(table: _Table, ids: _Table) -> set[int]:
    rows = {tuple(map(_whole, pair)): row for row, pair in table.select(MSR_ID_COLUMNS)}
    listed = [(row, tuple(map(_whole, pair))) for row, pair in ids.select(MSR_ID_COLUMNS)]
    unknown = next((row for row, pair in listed if pair not in rows), None)
    if unknown is not None:
        raise UserError(
            f"{ids.where(unknown)}: no row of {table.path.name} has this pair of ids. Get "
            f"{ids.path.name} (two columns of ids, no header) or the other file again."
        )
    return {rows[pair] for _, pair in listed}


# The Hub

_CHANGED = "The dataset on the Hub has changed: give --glue-dir with GLUE's own files."


def _is_on_hub(folder: Path) -> bool:
    """Return whether the path is no folder but a revision of GLUE on the Hub."""
    asked = hub_id(str(folder))
    return asked is not None and asked.name == HUB_DATASET and not folder.exists()


def _from_hub(task: Task, split: str, given: str | None) -> list[Example]:
    """Return the examples of the Hub's data set.

    given: nyu-mll/glue@revision; None: the newest.
    """
    import datasets

    asked = hub_id(given or HUB_DATASET)
    assert asked is not None
    try:
        with asked_once(HUB_DATASET):
            builder = datasets.load_dataset_builder(
                HUB_DATASET, task.hub_config, revision=asked.revision
            )
            builder.download_and_prepare()
            data = builder.as_dataset(split=split)
    # Errors of datasets, the Hub's client and HTTP have no common base class, and one remedy.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{task.name}'s {split} split could not be loaded from {given or HUB_DATASET} on the "
            f"Hub, nor from its local cache ({reason}){offline()}. Connect to the network once "
            f"(with HF_HUB_OFFLINE unset), or give --glue-dir. {_layout(task)}"
        ) from error
    note(HUB_DATASET, str(builder.hash or ""))
    missing = [column for column in (*task.columns, "label") if column not in data.column_names]
    if missing:
        raise UserError(
            f"{task.name}'s {split} split in {HUB_DATASET} has no column {' nor '.join(missing)}, "
            f"only {', '.join(data.column_names)}. {_CHANGED}"
        )
    table = data.to_dict()
    pairs = zip(*(table[column] for column in task.columns), strict=True)
    labels = _hub_labels(task, split, data.features["label"], table["label"])
    rows = table.get("idx", range(len(labels))) if is_test(split) else range(len(labels))
    return [_example(*example) for example in zip(pairs, labels, rows, strict=True)]


def _hub_labels(task: Task, split: str, feature: Any, values: list[Any]) -> list[Any]:
    """Return the labels in the order of `task.labels`, matched by name; None in a test split.

    The Hub orders the names of some tasks differently, and stores -1 for a label that GLUE keeps
    back.
    """
    if is_test(split):
        return [None] * len(values)
    labels: list[Any]
    if task.regression:
        labels = [_score(value) for value in values]
        names, allowed = "", "from {:g} to {:g}".format(*SCORE_RANGE)
    else:
        own_index = {
            index: task.labels.index(name)
            for index, name in enumerate(feature.names)
            if name in task.labels
        }
        labels = [own_index.get(value) for value in values]
        names, allowed = f" of {', '.join(feature.names)}", ", ".join(task.labels)
    if None in labels:
        row = labels.index(None)
        raise UserError(
            f"Row {row} of {task.name}'s {split} split in {HUB_DATASET} has label "
            f"{values[row]}{names}; the labels must be {allowed}. {_CHANGED}"
        )
    return labels
