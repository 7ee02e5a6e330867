"""GLUE's examples, from GLUE's own files or from the Hub, with the labels in the order of `task.labels`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqzb.errors import UserError
from sqzb.finetuning.tasks import HUB_DATASET, SCORE_RANGE, Task

MSR_FILES = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
MSR_DEV_IDS = "dev_ids.tsv"
MSR_ID_COLUMNS = ("#1 ID", "#2 ID")


class Example(NamedTuple):
    """One sentence, or pair of sentences, of a task.

    `label` is an index into `task.labels`, a number for regression, None in a test split.
    `row` counts from 0 in what was read: the Hub's split, or the file without its header line.
    """

    text_a: str
    text_b: str | None
    label: int | float | None
    row: int


def load_split(task: Task, split: str, glue_dir: Path | None = None) -> list[Example]:
    """All examples of a split ("train", "validation", "test": a key of `task.files`), in their source's order.

    `glue_dir` holds GLUE's own files: it is the task's folder or the one above. Without it the Hub's nyu-mll/glue is
    read. Test labels are never given, even where a file has them. Raises UserError when the data cannot be had or
    breaks GLUE's rules, with the file and line.
    """
    if split not in task.files:
        raise UserError(f"GLUE's {task.name} has no split {split!r}. Its splits are {', '.join(task.files)}.")
    if glue_dir is None:
        return _from_hub(task, split)
    folder = _task_folder(task, glue_dir)
    if _is_msr(task, folder):
        return _from_msr(task, split, folder)
    header = () if _is_test(split) else task.header
    return _examples(task, split, _read_table(task, folder / task.files[split], header))


def _is_test(split: str) -> bool:
    return split.startswith("test")


def _example(sentences: Sequence[str], label: int | float | None, row: int) -> Example:
    return Example(sentences[0], sentences[1] if len(sentences) > 1 else None, label, row)


# GLUE's own files


class _Table(NamedTuple):
    """A file of tab-separated values; row i is on line `first_line` + i."""

    path: Path
    columns: Sequence[str]
    rows: list[list[str]]
    first_line: int

    def where(self, row: int) -> str:
        return f"{self.path}:{self.first_line + row}"

    def select(self, wanted: Sequence[str], skip_short: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Each row's number and its cells in the wanted columns; columns nobody wants may be missing or extra."""
        places = [self._place(column) for column in wanted]
        for row, cells in enumerate(self.rows):
            if len(cells) > max(places):
                yield row, [cells[place] for place in places]
            elif not skip_short:
                raise UserError(
                    f"{self.where(row)}: the row has {_count(len(cells), 'column')} and {max(places) + 1} are needed "
                    f"(columns are separated by tabs: {', '.join(self.columns)}). Mend the row or get the file again."
                )

    def _place(self, column: str) -> int:
        if column not in self.columns:
            raise UserError(
                f"{self.path}:1: there is no column {column!r}; the columns found are "
                f"{', '.join(map(repr, self.columns))}. Check that this is GLUE's own file for the task, with its "
                "header line and with tabs between the columns."
            )
        return self.columns.index(column)


def _read_table(task: Task, path: Path, header: Sequence[str] = ()) -> _Table:
    """Read a file whose first line names its columns, unless `header` does.

    Quotes mean nothing (csv.QUOTE_NONE): GLUE's are not balanced. Lines end at LF or CRLF only: str.splitlines would
    also cut at the other separators that Unicode text may hold.
    """
    text = _read_text(task, path).removeprefix("\ufeff").replace("\r\n", "\n").rstrip("\n")
    lines = [line.split("\t") for line in text.split("\n")] if text else []
    columns, rows = (header, lines) if header else (lines[0] if lines else [], lines[1:])
    if not rows:
        what = "has a header line but no examples" if lines else "is empty"
        raise UserError(f"{path} {what}. {_remedy(task)}")
    return _Table(path, columns, rows, first_line=1 if header else 2)


def _read_text(task: Task, path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {_remedy(task)}") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: the file is not UTF-8 (byte {raw[error.start]:#04x} at offset {error.start}). "
            "Get the file again, or convert it to UTF-8."
        ) from error


def _examples(task: Task, split: str, table: _Table) -> list[Example]:
    columns = task.file_columns if _is_test(split) else (*task.file_columns, task.file_label)
    sentences = len(task.file_columns)
    return [
        _example(cells[:sentences], None if _is_test(split) else _label(task, cells[-1], table.where(row)), row)
        for row, cells in table.select(columns, task.skip_short)
    ]


def _label(task: Task, value: str, where: str) -> int | float:
    """Match by what GLUE's files write, name or number: orders of the names differ between code bases."""
    if value in task.file_labels:
        return task.file_labels.index(value)
    score = _score(value) if task.regression else None
    if score is not None:
        return score
    allowed = "a number from {:g} to {:g}".format(*SCORE_RANGE) if task.regression else " or ".join(task.file_labels)
    raise UserError(
        f"{where}: the label in column {task.file_label!r} is {value!r}, and must be {allowed}. "
        "Mend the row or get the file again."
    )


def _score(value: str) -> float | None:
    try:
        score = float(value)
    except ValueError:
        return None
    return score if SCORE_RANGE[0] <= score <= SCORE_RANGE[1] else None


def _task_folder(task: Task, glue_dir: Path) -> Path:
    """`glue_dir` itself or the folder in it that has one of the task's names."""
    names = {name.lower() for name in task.folders}
    try:
        inside = [path for path in sorted(glue_dir.iterdir()) if path.name.lower() in names and path.is_dir()]
    except OSError as error:
        raise UserError(f"The folder {glue_dir} cannot be read ({error.strerror}). {_remedy(task)}") from error
    if inside:
        return inside[0]
    # A link may have the task's name, or be to a folder that has it.
    if names & {glue_dir.absolute().name.lower(), glue_dir.resolve().name.lower()}:
        return glue_dir
    raise UserError(f"{glue_dir} has no folder {' or '.join(task.folders)} (in any case). {_remedy(task)}")


def _layout(task: Task) -> str:
    msr = f" (or {MSR_FILES['train']}, {MSR_DEV_IDS} and {MSR_FILES['test']} in place of them all)"
    return (
        f"GLUE's own files for {task.name} are {', '.join(task.files.values())}{msr if task.name == 'mrpc' else ''} "
        f"in a folder {' or '.join(task.folders)}, which --glue-dir names or has inside it."
    )


def _remedy(task: Task) -> str:
    return (
        f"{_layout(task)} Get them from gluebenchmark.com/tasks, or leave out --glue-dir to take {HUB_DATASET} from "
        "the Hub."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# MRPC as Microsoft gave it out (Dolan & Brockett 2005): GLUE says by pairs of ids which part of train is validation.


def _is_msr(task: Task, folder: Path) -> bool:
    """By the folder and not file by file: mixing both layouts could put validation examples into train."""
    glue, msr = folder / task.files["train"], folder / MSR_FILES["train"]
    return task.name == "mrpc" and msr.exists() and not glue.exists()


def _from_msr(task: Task, split: str, folder: Path) -> list[Example]:
    table = _read_table(task, folder / MSR_FILES[split])
    examples = _examples(task, split, table)
    if _is_test(split):
        return examples
    validation = _validation_rows(table, _read_table(task, folder / MSR_DEV_IDS, header=MSR_ID_COLUMNS))
    return [example for example in examples if (example.row in validation) == (split == "validation")]


def _validation_rows(table: _Table, ids: _Table) -> set[int]:
    rows = {tuple(pair): row for row, pair in table.select(MSR_ID_COLUMNS)}
    unknown = next((row for row, pair in ids.select(MSR_ID_COLUMNS) if tuple(pair) not in rows), None)
    if unknown is not None:
        raise UserError(
            f"{ids.where(unknown)}: no row of {table.path.name} has this pair of ids. Get {ids.path.name} (two columns "
            "of ids, no header) or the other file again."
        )
    return {rows[tuple(pair)] for _, pair in ids.select(MSR_ID_COLUMNS)}


# The Hub


def _from_hub(task: Task, split: str) -> list[Example]:
    import datasets

    try:
        data = datasets.load_dataset(HUB_DATASET, task.hub_config, split=split)
    except Exception as error:  # datasets, the Hub's client and HTTP share no base, and the way out is the same for all
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{task.name}'s {split} split could not be had from {HUB_DATASET} on the Hub, nor from its local cache "
            f"({reason}). Connect to the network once (with HF_HUB_OFFLINE unset), or give --glue-dir. "
            f"{_layout(task)}"
        ) from error
    table = data.to_dict()
    pairs = zip(*(table[column] for column in task.columns), strict=True)
    labels = _hub_labels(task, split, data.features["label"], table["label"])
    return [_example(pair, label, row) for row, (pair, label) in enumerate(zip(pairs, labels, strict=True))]


def _hub_labels(task: Task, split: str, feature: Any, values: list[Any]) -> list[Any]:
    """Match by name: the Hub's order is its own business. Its -1 stands for a label that is kept back."""
    if _is_test(split):
        return [None] * len(values)
    if task.regression:
        return values
    index = {place: task.labels.index(name) for place, name in enumerate(feature.names) if name in task.labels}
    unknown = next((row for row, value in enumerate(values) if value not in index), None)
    if unknown is not None:
        raise UserError(
            f"Row {unknown} of {task.name}'s {split} split in {HUB_DATASET} has label {values[unknown]} of "
            f"{', '.join(feature.names)}; the labels must be {', '.join(task.labels)}. The dataset on the Hub has "
            "changed: give --glue-dir with GLUE's own files."
        )
    return [index[value] for value in values]
