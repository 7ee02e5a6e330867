"""GLUE tasks as files of one's own, compared with the same tasks by name.

    python scripts/check_own_data.py --glue-dir GLUE [--tasks cola sst2 mrpc mnli] [--examples 2000]

For each task, the first training examples and all validation examples are written as CSV and as
JSON lines under other column names, the labels as numbers in GLUE's order. `sqzb finetune --task`
and `sqzb finetune --train` run with the same settings from the same tiny random model. Weights must
be equal bit for bit, and metrics that both report must be equal.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.bench.report import parser
from sqzb.data.dataset import Example
from sqzb.glue.data import open_task
from sqzb.glue.tasks import task
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.checkpoint import read_tensors
from sqzb.tokenizer import train_tokenizer
from sqzb.training.run_folder import final_figures

SETTINGS = ["epochs=1", "batch=32", "lr=1e-3", "max_length=64", "seed=3"]
TEXTS, LABEL = ("first text", "second text"), "verdict"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--glue-dir", type=Path, required=True, help="GLUE's own files")
    arguments.add_argument("--tasks", nargs="+", default=["cola", "sst2", "mrpc", "mnli"])
    arguments.add_argument("--examples", type=int, default=2000, help="training examples")
    given = arguments.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.tasks:
            folder = Path(temporary) / name
            shorten(given.glue_dir, folder, name, given.examples)
            rows += check(folder, name)
    console.table(
        "Own files beside --task", ("task", "file", "examples", "weights", "metrics"), rows
    )
    sys.exit(0 if all(row[3] == row[4] == "equal" for row in rows) else 1)


def shorten(glue_dir: Path, folder: Path, name: str, examples: int) -> None:
    """Copy GLUE's files of a task, with the first training examples only."""
    row = task(name)
    source = next(glue_dir / part for part in row.folders if (glue_dir / part).is_dir())
    target = folder / "glue" / row.folders[0]
    target.mkdir(parents=True)
    for split in ("train", *row.validation_splits):
        path = source / row.files[split]
        if not path.exists():  # the other half of MNLI's validation is not compared
            path = source / row.files[row.validation_splits[0]]
        lines = path.read_bytes().split(b"\n")
        kept = lines[: examples + 1] if split == "train" else lines
        (target / row.files[split]).write_bytes(b"\n".join(kept).rstrip(b"\n") + b"\n")


def check(folder: Path, name: str) -> list[tuple[str, ...]]:
    """Finetune by name and by file, and return a row of the table for each file format."""
    data = open_task(name, folder / "glue")
    train = data.read("train").examples
    validation = data.read(data.validation_splits[0]).examples
    model = random_model(folder / "model", train)

    shared = [*SETTINGS, "--model", str(model), "--resume", "auto"]
    by_name = folder / "by_name"
    run_sqzb(
        "finetune",
        "--task",
        name,
        "--glue-dir",
        str(folder / "glue"),
        "--output",
        str(by_name),
        *shared,
    )
    rows: list[tuple[str, ...]] = []
    for ending, write in (("csv", write_csv), ("jsonl", write_jsonl)):
        files = {split: folder / f"{split}.{ending}" for split in ("train", "validation")}
        write(files["train"], train)
        write(files["validation"], validation)
        output = folder / ending
        columns = ["--text", ",".join(TEXTS[: data.texts]), "--label", LABEL]
        options = [
            "--train",
            str(files["train"]),
            "--validation",
            str(files["validation"]),
            *columns,
        ]
        options += ["keep_best=false", "--kind", "classes", "--output", str(output)]
        run_sqzb("finetune", *options, *shared)
        rows.append((name, ending, f"{len(train):,}", *compared(by_name, output)))
    return rows


def random_model(folder: Path, examples: Sequence[Example]) -> Path:
    """Save a tiny random model with a vocabulary of the examples."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([example.text_a for example in examples], 3000, lowercase=True)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    SqueezeBertForPreTraining(config).save_pretrained(folder, tokenizer)
    return folder


def fields(example: Example) -> list[str | int]:
    """Return the texts and the label of an example, as a row of a file."""
    texts = [example.text_a] if example.text_b is None else [example.text_a, example.text_b]
    assert isinstance(example.label, int)
    return [*texts, example.label]


def write_csv(path: Path, examples: Sequence[Example]) -> None:
    rows = [fields(example) for example in examples]
    header = [*TEXTS[: len(rows[0]) - 1], LABEL]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_jsonl(path: Path, examples: Sequence[Example]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            row = fields(example)
            header = [*TEXTS[: len(row) - 1], LABEL]
            file.write(json.dumps(dict(zip(header, row, strict=True))) + "\n")


def compared(by_name: Path, by_file: Path) -> tuple[str, str]:
    """Return whether the weights of two runs are equal, and the metrics that both have."""
    first, second = (read_tensors(folder / "final") for folder in (by_name, by_file))
    same = first.keys() == second.keys()
    same = same and all(torch.equal(second[name], tensor) for name, tensor in first.items())

    of_task, of_file = final_figures(by_name), final_figures(by_file)
    assert of_task is not None and of_file is not None
    # MNLI's metrics have the half before them.
    named = {name.removeprefix("matched_"): value for name, value in of_task.items()}
    common = (named.keys() & of_file.keys()) - {"score"}
    metrics = bool(common) and all(named[name] == of_file[name] for name in common)
    return "equal" if same else "DIFFER", "equal" if metrics else "DIFFER"


if __name__ == "__main__":
    main()
