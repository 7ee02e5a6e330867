"""A GLUE submission from finetuned runs, checked file by file.

    python scripts/check_submission.py runs/bench_glue [RUNS ...] --glue-dir GLUE
        --submission glue.zip

The best run of a task predicts the test files that lie in GLUE. For every other task, a tiny model
with random weights is finetuned for one step and predicts a temporary test file of random words
with GLUE's number of rows. `sqzb eval --submission` writes the zip. It is then checked against
GLUE's FAQ without any code of sqzb.
"""

import random
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.bench.report import parser
from sqzb.glue.tasks import TASKS, Task, is_test
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.tokenizer import train_tokenizer

WORDS = ["river", "stone", "winter", "light", "garden", "engine", "letter", "copper"]
LABELLED = 16  # rows of an artificial training or validation file: one batch

# The rows of each file and the values of a prediction, from gluebenchmark.com/faq and the sizes of
# GLUE's test files.
BINARY, TWO_WAY = {"0", "1"}, {"entailment", "not_entailment"}
THREE_WAY = {"entailment", "neutral", "contradiction"}
FILES = {
    "CoLA.tsv": (1063, BINARY),
    "SST-2.tsv": (1821, BINARY),
    "MRPC.tsv": (1725, BINARY),
    "STS-B.tsv": (1379, None),  # a number from 0 to 5
    "QQP.tsv": (390965, BINARY),
    "MNLI-m.tsv": (9796, THREE_WAY),
    "MNLI-mm.tsv": (9847, THREE_WAY),
    "QNLI.tsv": (5463, TWO_WAY),
    "RTE.tsv": (3000, TWO_WAY),
    "WNLI.tsv": (146, BINARY),
    "AX.tsv": (1104, THREE_WAY),
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("runs", nargs="+", help="runs, or folders that hold runs")
    arguments.add_argument(
        "--glue-dir", type=Path, required=True, help="GLUE's own files of the runs' tasks"
    )
    arguments.add_argument("--submission", type=Path, required=True)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, random_runs = folder / "glue", folder / "random"
        data.mkdir()
        random_runs.mkdir()
        random_model(folder / "start")
        for task in TASKS.values():
            name = task.folders[0]
            files = [given.glue_dir / name / task.files[split] for split in task.test_splits]
            if all(file.exists() for file in files):
                (data / name).symlink_to((given.glue_dir / name).resolve())
                continue
            write_files(task, data / name)
            if not task.model_of:
                options = ["--task", task.name, "--output", str(random_runs / task.name)]
                options += ["--model", str(folder / "start"), "--glue-dir", str(data)]
                sqzb("finetune", *options, "epochs=1", "max_length=32")
        options = ["--submission", str(given.submission), "--overwrite", "--glue-dir", str(data)]
        sqzb("eval", *given.runs, str(random_runs), *options)
    problems = check(given.submission)
    success = f"{given.submission}: all {len(FILES)} files are as GLUE takes them."
    console.out.print("\n".join(problems) or success)
    sys.exit(bool(problems))


def random_model(folder: Path) -> None:
    """Save a model of 1 layer, 32 wide, with random weights and a tokenizer."""
    tokenizer = train_tokenizer([" ".join(WORDS)], 200, lowercase=True)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    SqueezeBertForSequenceClassification(config).save_pretrained(folder, tokenizer)


def write_files(task: Task, folder: Path) -> None:
    """Write all of the task's files, the test files with GLUE's number of rows."""
    folder.mkdir()
    draw = random.Random(task.name)
    labels = [*task.file_labels] or ["1.5", "4.0"]
    for split, name in task.files.items():
        rows = []
        for row in range(task.counts[split] if is_test(split) else LABELLED):
            sentences = [" ".join(draw.choices(WORDS, k=4)) for _ in task.file_columns]
            rows.append([str(row), *sentences, draw.choice(labels)])
        columns = [task.file_index, *task.file_columns, task.file_label]
        shown = columns[:-1] if is_test(split) else columns
        lines = ["\t".join(cells[: len(shown)]) for cells in (columns, *rows)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def sqzb(*arguments: str) -> None:
    console.out.print(f"{run_sqzb(*arguments):.1f} s")


def check(path: Path) -> Sequence[str]:
    """Return the problems for which GLUE would reject the zip."""
    problems = []
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != sorted(FILES):
            return [f"The files are {', '.join(archive.namelist())}"]
        for name, (count, values) in FILES.items():
            header, *rows = archive.read(name).decode("ascii").splitlines()
            if header != "index\tprediction":
                problems.append(f"{name}: the header is {header!r}")
            indices, predictions = zip(*(row.split("\t") for row in rows), strict=True)
            if indices != tuple(str(index) for index in range(count)):
                problems.append(f"{name}: the indices are not 0 to {count - 1:,}")
            if values is None:
                valid = all(0 <= float(value) <= 5 for value in predictions)
            else:
                valid = set(predictions) <= values
            if not valid:
                problems.append(f"{name}: there are other predictions than {values or '0 to 5'}")
    return problems


if __name__ == "__main__":
    main()
