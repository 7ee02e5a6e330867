"""GLUE's examples, from GLUE's own files or from the Hub; labels in the order of `task.labels`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqzb.console import counted
from sqzb.data.dataset import DataSet, Example, Split, empty_texts
from sqzb.errors import UserError
from sqzb.glue.hub import from_hub, is_on_hub
from sqzb.glue.table import MSR_DEV_IDS, MSR_FILES, Table, read_table, remedy
from sqzb.glue.tasks import Task, is_test, task
from sqzb.glue.values import example_of, label_of, whole

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
        on_disk=folder is not None and not is_on_hub(folder),
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
    if folder is None or is_on_hub(folder):
        return from_hub(task, split, None if folder is None else str(folder))
    folder = _task_folder(task, folder)
    if _is_msr(task, folder):
        return _from_msr(task, split, folder)
    header = () if is_test(split) else task.header
    return _examples(task, split, read_table(task, _file(task, split, folder), header))


def differing_count(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """Return a warning if the number of examples differs from GLUE's, as in a truncated file."""
    n, expected = len(examples), task.counts[split]
    if n == expected:
        return None
    part = "the split is incomplete" if n < expected else "the split has more than GLUE's own"
    present = counted(n, "example")
    return f"{task.name}'s {split} split has {present}, and GLUE's has {expected:,}: {part}."


def empty_sentences(task: Task, split: str, examples: Sequence[Example]) -> str | None:
    """Return a warning if a text of an example is empty, or only white space."""
    n = empty_texts(examples)
    if n == 0:
        return None
    total = counted(len(examples), "example")
    return (
        f"{task.name}'s {split} split has an empty sentence in {n:,} of its {total}. "
        "These examples are kept."
    )


# GLUE's own files


def _examples(task: Task, split: str, table: Table) -> list[Example]:
    examples = list(_unlabelled(task, table) if is_test(split) else _labelled(task, table))
    if not examples:
        raise UserError(f"{table.path} has no row with all its columns. {remedy(task)}")
    return examples


def _labelled(task: Task, table: Table) -> Iterator[Example]:
    for row, (*sentences, label) in table.select(
        (*task.file_columns, task.file_label), task.skip_short
    ):
        yield example_of(sentences, label_of(task, label, table.where(row)), row)


def _unlabelled(task: Task, table: Table) -> Iterator[Example]:
    if task.file_index not in table.columns:
        for row, sentences in table.select(task.file_columns, task.skip_short):
            yield example_of(sentences, None, row)
        return
    lines: dict[str, int] = {}
    for row, (*sentences, index) in table.select(
        (*task.file_columns, task.file_index), task.skip_short
    ):
        index = whole(index)
        if not (index.isascii() and index.isdigit()):
            problem = "must be a whole number"
        elif index in lines:
            problem = f"is that of line {table.first_line + lines[index]} too"
        else:
            lines[index] = row
            yield example_of(sentences, None, int(index))
            continue
        raise UserError(
            f"{table.where(row)}: the number in column {task.file_index!r} is {index!r}, and "
            f"{problem}. Correct the row, or get the file again."
        )


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
        f"{given} has no folder {' or '.join(task.folders)} (in any case). {remedy(task)}"
    )


def _folders(task: Task, folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir()]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). {remedy(task)}"
        ) from error


def _plain(name: str) -> str:
    """Return a name in a form in which STS-B, sts-b, STSB and sts_b are equal."""
    return name.lower().replace("-", "").replace("_", "")


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
    table = read_table(task, _msr_file(folder, MSR_FILES[split]))
    examples = _examples(task, split, table)
    if is_test(split):
        return examples
    validation = _validation_rows(
        table, read_table(task, _msr_file(folder, MSR_DEV_IDS), header=MSR_ID_COLUMNS)
    )
    return [
        example for example in examples if (example.row in validation) == (split == "validation")
    ]


def _validation_rows(table: Table, ids: Table) -> set[int]:
    rows = {tuple(map(whole, pair)): row for row, pair in table.select(MSR_ID_COLUMNS)}
    listed = [(row, tuple(map(whole, pair))) for row, pair in ids.select(MSR_ID_COLUMNS)]
    unknown = next((row for row, pair in listed if pair not in rows), None)
    if unknown is not None:
        raise UserError(
            f"{ids.where(unknown)}: no row of {table.path.name} has this pair of ids. Get "
            f"{ids.path.name} (two columns of ids, no header) or the other file again."
        )
    return {rows[pair] for _, pair in listed}
