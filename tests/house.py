"""A house of everything that commands read: sources, corpus, runs, models, tables, caches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fork_server
from conftest import prose
from stopped_runs import write_task

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LIMIT = 60  # seconds of a command; on a quiet machine only a sweep takes more than two

CORPUS_RECIPE = """
sources:
  prose: {path: source.jsonl}
vocabulary: {size: 150, sample_characters: 50000}
sequence_lengths: [16]
heldout: 0.2
min_characters: 100
"""
RECIPE = """
corpus: corpus
sequence_length: 16
max_predictions: 3
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 32}
steps: 6
global_batch: 16
micro_batch: 16
log_every: 1
evaluate_every: 3
evaluate_sequences: 16
checkpoint_every: 2
keep_checkpoints: 2
"""
FINETUNE = ["batch=16", "max_length=16", "log_every=1", "checkpoint_every=2", "lr=1e-3"]


def run(
    folder: Path, *arguments: str, program: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of sqzb in a folder.

    Raises:
        subprocess.TimeoutExpired: it ran longer than LIMIT.
    """
    command = [sys.executable, *(program or ["-m", "sqzb"]), *arguments]
    return fork_server.run(command, cwd=folder, env=ENVIRONMENT, timeout=LIMIT)


def build_house(folder: Path) -> None:
    """Write one of each kind of file to a folder, by the commands themselves."""
    texts = prose(40, 0)
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "source.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "corpus.yaml").write_text(CORPUS_RECIPE)
    (folder / "recipe.yaml").write_text(RECIPE)
    write_task(folder, 32)
    rows = [f"{'good' if n % 2 else 'bad'},{texts[n % 40][:60]!r}" for n in range(40)]
    (folder / "reviews.csv").write_text("\n".join(["label,text", *rows]) + "\n")
    (folder / "reviews.jsonl").write_text("\n".join(lines[:20]) + "\n")

    task = ["--task", "mrpc", "--glue-dir", ".", "--model", "pretrained"]
    taught = ["--teacher", "mrpc", "distillation.cache=cache", "epochs=1"]
    for arguments in (
        ["prepare-corpus", "corpus.yaml", "--output", "corpus"],
        ["pretrain", "recipe.yaml", "--output", "pretrained"],
        ["finetune", *task, "--output", "mrpc", "epochs=2", *FINETUNE],
        ["finetune", *task, "--output", "taught", *taught, *FINETUNE],
        ["finetune", "--train", "reviews.csv", "--model", "pretrained", "--output", "reviews",
         "epochs=2", *FINETUNE],
    ):  # fmt: skip
        ended = run(folder, *arguments)
        assert ended.returncode == 0, ended.stderr
