"""GLUE's examples, from GLUE's own files or from the Hub, with the labels in the order of `task.labels`."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqzb.data.dataset import DataSet, Example, Split, empty_texts
from sqzb.errors import UserError
from sqzb.glue.tasks import HUB_DATASET, SCORE_RANGE, Task, is_test, task

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
    """Return a GLUE task as a data set. Its splits are read when they are asked for.

    folder: of GLUE's own files, as `load_split` takes it; None: the Hub's copy is read.

    Raises:
        UserError: There is no such task. Reading a split raises it as `load_split` does.
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
        on_disk=folder is not None,
        model_of=chosen.model_of,
    )


def _with_warnings(chosen: Task, split: str, folder: Path | None) -> Split:
    examples = load_split(chosen, split, folder)
    warnings = [differing_count(chosen, split, examples), empty_sentences(chosen, split, examples)]
    return Split(examples, [warning for warning in warnings if warning is not None])


def load_split(task: Task, split: str, folder: Path | None = None) -> list[Example]:
    """All examples of a split ("train", "validation", "test": a key of `task.files`), in their source's order.

    `folder` holds GLUE's own files: it is the task's folder, the one above it, or one above a
    glue_data folder. Without it the Hub's nyu-mll/glue is read. Test labels are never given, even
    where a file has them.

    Quotes mean nothing; a byte order mark, CRLF, further columns and empty sentences are accepted,
    as is any number of examples (`differing_count`). Raises UserError when the data cannot be had
    or breaks GLUE's rules, with the file and line.
    """
    if split not in task.files:
        instead = f" Finetune {task.model_of}, whose model predicts it." if task.model_of else ""
        raise UserError(
            f"GLUE's {task.name} has no split {split!r}. Its splits are "
            f"{', '.join(task.files)}.{instead}"
        )
    if folder is None:
        return _from_hub(task, split)
    folder = _task_folder(task, folder)
    if _is_msr(task, folder):
        return _from_msr(task, split, folder)
    header = () if is_test(split) else task.header
    return _examples(task, split, _read_table(task, _file(task, split, folder), header))


def differing_count(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """A sentence to warn with where there are more or fewer examples than GLUE's, as in a file that was cut short."""
    n, expected = len(examples), task.counts[split]
    if n == expected:
        return None
    part = "it is a part, or was cut short" if n < expected else "it has more than GLUE's own"
    return f"{task.name}'s {split} split has {n:,} examples, and GLUE's has {expected:,}: {part}."


def empty_sentences(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """Return a sentence to warn with where a text of an example is empty, or white space alone."""
    n = empty_texts(examples)
    if n == 0:
        return None
    total = f"{len(examples):,}"
    return (
        f"{task.name}'s {split} split has an empty sentence in {n:,} of its {total} examples: "
        "they are kept."
    )


def _example(sentences: Sequence[str], label: int | float | None, row: int) -> Example:
    return Example(sentences[0], sentences[1] if len(sentences) > 1 else None, label, row)


# GLUE's own files


class _Table(NamedTuple):
    """A file of tab-separated values; `lines[i]`, undecoded, is the file's line `first_line` + i."""

    task: Task
    path: Path
    columns: Sequence[str]
    lines: list[bytes]
    first_line: int
    ended: bool  # whether the last line has an end

    def where(self, row: int) -> str:
        return f"{self.path}:{self.first_line + row}"

    def select(
        self, wanted: Sequence[str], skip_short: bool = False
    ) -> Iterator[tuple[int, list[str]]]:
        """Each row's number and its cells in the wanted columns; columns nobody wants may be missing or extra."""
        places = [self._place(column) for column in wanted]
        for row, line in enumerate(self.lines):
            cells = _cells(line, self.where(row))
            if len(cells) > max(places):
                yield row, [cells[place] for place in places]
            elif not skip_short:
                cut = row == len(self.lines) - 1 and not self.ended
                raise UserError(
                    f"{self.where(row)}: the row has {_count(len(cells), 'column')} and "
                    f"{max(places) + 1} are needed (columns are separated by tabs: "
                    f"{', '.join(self.columns)}). "
                    f"{'The file was cut short here: get' if cut else 'Mend the row or get'} the "
                    "file again."
                )

    def _place(self, column: str) -> int:
        if column in self.columns:
            return self.columns.index(column)
        found = f"there is no column {column!r}; the columns found are {', '.join(map(repr, self.columns))}"
        if column == self.task.file_label and set(self.task.file_columns) <= set(self.columns):
            raise UserError(
                f"{self.path}:1: {found}. This is a test file, whose labels GLUE keeps back, or "
                f"lacks its labels: put {self.task.name}'s own file for this split in its place."
            )
        raise UserError(
            f"{self.path}:1: {found}. Check that this is GLUE's own file for {self.task.name}, "
            "with its header line and with tabs between the columns."
        )


def _read_table(task: Task, path: Path, header: Sequence[str] = ()) -> _Table:
    """Read a file whose first line names its columns; where `header` does, a first line that does so too may be there.

    Lines end at LF or CRLF only: text mode and str.splitlines would also cut at the other
    separators that the text may hold. They are decoded one by one, as a whole file with one rare
    character in it takes four times its size.
    """
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {_remedy(task)}") from error
    ended = raw.endswith(b"\n")
    lines = raw.split(b"\n")
    while lines and lines[-1] in (b"", b"\r"):
        lines.pop()
    first = _cells(lines[0], f"{path}:1") if lines else []
    headed = not header or set(task.file_columns) <= set(first)
    columns, lines = (first, lines[1:]) if headed else (header, lines)
    if not lines:
        raise UserError(
            f"{path} {'has a header line but no examples' if first else 'is empty'}. "
            f"{_remedy(task)}"
        )
    return _Table(task, path, columns, lines, 2 if headed else 1, ended)


def _cells(line: bytes, where: str) -> list[str]:
    """Quotes mean nothing (csv.QUOTE_NONE): GLUE's are not balanced."""
    try:
        return line.removesuffix(b"\r").decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: the file is not UTF-8 (byte {line[error.start]:#04x}, after {error.start} "
            "others of the line). Get the file again, or convert it to UTF-8."
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
            f"{problem}. Mend the row or get the file again."
        )


def _label(task: Task, value: str, where: str) -> int | float:
    """Match by what GLUE's files write, name or number: orders of the names differ between code bases."""
    if value in task.file_labels:
        return task.file_labels.index(value)
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
        "Mend the row or get the file again."
    )


def _score(value: Any) -> float | None:
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if SCORE_RANGE[0] <= score <= SCORE_RANGE[1] else None


def _file(task: Task, split: str, folder: Path) -> Path:
    """GLUE's own file of the split, under whichever of its names is there."""
    names = (task.files[split], *(task.other_files if is_test(split) else ()))
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def _task_folder(task: Task, given: Path) -> Path:
    """`given` itself, or the folder in it, or in a folder of `ABOVE` in it, that has one of the task's names."""
    names = {_plain(name) for name in task.folders}
    inside = _folders(task, given)
    deeper = (
        path for above in inside if above.name.lower() in ABOVE for path in _folders(task, above)
    )
    found = next((path for path in (*inside, *deeper) if _plain(path.name) in names), None)
    if found is not None:
        return found
    # A link may have the task's name, or be to a folder that has it.
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
    """STS-B, sts-b, STSB and sts_b are one."""
    return name.lower().replace("-", "").replace("_", "")


def _layout(task: Task) -> str:
    others = f" (or {' or '.join(task.other_files)})" if task.other_files else ""
    if task.name == "mrpc":
        others = f" (or {MSR_FILES['train']}, {MSR_DEV_IDS} and {MSR_FILES['test']} in place of them all)"
    return (
        f"GLUE's own files for {task.name} are {', '.join(task.files.values())}{others} "
        f"in a folder {' or '.join(task.folders)}, which --glue-dir names or has inside it."
    )


def _remedy(task: Task) -> str:
    return (
        f"{_layout(task)} Get them from gluebenchmark.com/tasks, or leave out --glue-dir to take "
        f"{HUB_DATASET} from the Hub."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# MRPC as Microsoft gave it out (Dolan & Brockett 2005): GLUE says by pairs of ids which part of
# train is validation.


def _is_msr(task: Task, folder: Path) -> bool:
    """By the folder and not file by file: mixing both layouts could put validation examples into train."""
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
    rows = {tuple(pair): row for row, pair in table.select(MSR_ID_COLUMNS)}
    unknown = next(
        (row for row, pair in ids.select(MSR_ID_COLUMNS) if tuple(pair) not in rows), None
    )
    if unknown is not None:
        raise UserError(
            f"{ids.where(unknown)}: no row of {table.path.name} has this pair of ids. Get "
            f"{ids.path.name} (two columns of ids, no header) or the other file again."
        )
    return {rows[tuple(pair)] for _, pair in ids.select(MSR_ID_COLUMNS)}


# The Hub

_CHANGED = "The dataset on the Hub has changed: give --glue-dir with GLUE's own files."


def _from_hub(task: Task, split: str) -> list[Example]:
    import datasets

    try:
        data = datasets.load_dataset(HUB_DATASET, task.hub_config, split=split)
    except Exception as error:  # datasets, the Hub's client and HTTP share no base, and the way out is the same for all
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{task.name}'s {split} split could not be had from {HUB_DATASET} on the Hub, nor "
            f"from its local cache ({reason}). Connect to the network once (with HF_HUB_OFFLINE "
            f"unset), or give --glue-dir. {_layout(task)}"
        ) from error
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
    """Match by name: the Hub's order is its own business. Its -1 stands for a label that is kept back."""
    if is_test(split):
        return [None] * len(values)
    if task.regression:
        labels, found, allowed = (
            [_score(value) for value in values],
            "",
            "from {:g} to {:g}".format(*SCORE_RANGE),
        )
    else:
        places = {
            place: task.labels.index(name)
            for place, name in enumerate(feature.names)
            if name in task.labels
        }
        labels = [places.get(value) for value in values]
        found, allowed = f" of {', '.join(feature.names)}", ", ".join(task.labels)
    if None in labels:
        row = labels.index(None)
        raise UserError(
            f"Row {row} of {task.name}'s {split} split in {HUB_DATASET} has label "
            f"{values[row]}{found}; the labels must be {allowed}. {_CHANGED}"
        )
    return labels
