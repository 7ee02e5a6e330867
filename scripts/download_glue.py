"""Download GLUE from the Hub to a folder with GLUE's own files, for --glue-dir.

    python scripts/download_glue.py OUT [--tasks mrpc rte ...]

Every file is written atomically, and a file with GLUE's number of examples is kept, so a second
call continues where the first one stopped. Columns that the Hub's copy lacks (ids, genres, parses)
are empty. The exit code is 1 when a split has another number of examples than GLUE's.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sqzb import console
from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.files import whole_file
from sqzb.glue.data import differing_count, load_split
from sqzb.glue.tasks import HUB_DATASET, TASKS, Task, is_test, task

MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse "
    "sentence2_parse sentence1 sentence2"
)
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
# The columns of GLUE's own files, of labelled files and of test files. Their order matters, because
# other readers select columns by number.
COLUMNS = {
    "cola": ("source label mark sentence", "index sentence"),
    "sst2": ("sentence label", "index sentence"),
    "mrpc": ("Quality|#1 ID|#2 ID|#1 String|#2 String", "index|#1 ID|#2 ID|#1 String|#2 String"),
    "qqp": ("id qid1 qid2 question1 question2 is_duplicate", "id question1 question2"),
    "stsb": (f"{STSB} score", STSB),
    "mnli": (f"{MNLI} label1 label2 label3 label4 label5 gold_label", MNLI),
    "qnli": ("index question sentence label", "index question sentence"),
    "rte": ("index sentence1 sentence2 label", "index sentence1 sentence2"),
    "wnli": ("index sentence1 sentence2 label", "index sentence1 sentence2"),
    "ax": ("", "index sentence1 sentence2"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="all by default")
    given = parser.parse_args(arguments)
    try:
        warnings = []
        for name in given.tasks:
            warnings += fetch(task(name), given.out)
    except UserError as error:
        console.error(f"{error} Run the script again to resume.")
        return 1
    for warning in warnings:
        console.warn(f"{warning} {HUB_DATASET} or its copy in the local cache has changed.")
    return 1 if warnings else 0


def fetch(chosen: Task, out: Path) -> list[str]:
    """Write the missing files of a task; return a warning for each split with another size."""
    warnings = []
    for split, name in chosen.files.items():
        path = out / chosen.folders[0] / name
        if is_whole(chosen, split, path):
            console.out.print(f"{path} exists", markup=False)
            continue
        examples = load_split(chosen, split)
        lines = file_lines(chosen, split, examples)
        with whole_file(path) as aside:
            aside.write_bytes("".join(f"{line}\n" for line in lines).encode())
        console.out.print(f"{path}: {len(examples):,} examples", markup=False)
        warning = differing_count(chosen, split, examples)
        if warning is not None:
            warnings.append(warning)
    return warnings


def is_whole(chosen: Task, split: str, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        return differing_count(chosen, split, load_split(chosen, split, path.parent)) is None
    except UserError:
        return False


def file_lines(chosen: Task, split: str, examples: Sequence[Example]) -> list[str]:
    named = COLUMNS[chosen.name][is_test(split)]
    columns = named.split("|" if "|" in named else " ")
    headed = is_test(split) or not chosen.header
    return ["\t".join(columns)] * headed + [
        row(chosen, split, columns, example) for example in examples
    ]


def row(chosen: Task, split: str, columns: Sequence[str], example: Example) -> str:
    cells = dict.fromkeys(columns, "")
    cells |= dict(zip(chosen.file_columns, (example.text_a, example.text_b or ""), strict=False))
    if chosen.file_index in cells:
        cells[chosen.file_index] = str(example.row)
    if example.label is not None:
        assert isinstance(example.label, int | float)
        score = chosen.regression
        cells[chosen.file_label] = (
            f"{example.label:.3f}" if score else chosen.file_labels[int(example.label)]
        )
    if any(mark in cell for cell in cells.values() for mark in "\t\n"):
        raise UserError(
            f"Row {example.row} of {chosen.name}'s {split} split in {HUB_DATASET} contains a tab "
            "or a line end, which GLUE's own files cannot hold. Leave out --glue-dir for this "
            "task."
        )
    return "\t".join(cells.values())


if __name__ == "__main__":
    sys.exit(main())
