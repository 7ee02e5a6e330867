"""The golden test: a corpus, 12 steps of pretraining and 12 of finetuning give the known numbers.

A change that moves or renames code must leave this file alone and green. The test uses commands and
files only, so nothing in it depends on how the package is laid out inside. A change that is meant
to change numbers replaces them in a commit of its own that says why; `python tests/test_golden.py`
prints them.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

TEXT = """
the of and in to was with for water river stone winter light garden engine letter copper window
morning silver forest paper harbour bridge music village history method number reason travel answer
children language science
"""
WORDS = TEXT.split()
# Nats, of losses around 5.6 and 0.7. The instructions of another CPU move them by up to 2.5e-7.
TOLERANCE = 1e-6

CORPUS_RECIPE = """
sources: {prose: {path: prose.jsonl}}
vocabulary: {size: 300}
sequence_lengths: [16, 32]
heldout: 0.1
min_characters: 100
"""
PRETRAIN_RECIPE = """
corpus: corpus
sequence_length: 32
max_predictions: 5
model:
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 4
  intermediate_size: 64
  max_position_embeddings: 32
steps: 12
global_batch: 16
micro_batch: 8
optimizer: {lr: 0.002}
log_every: 1
"""
FINETUNE_KEYS = ("epochs=3", "batch=16", "lr=1e-3", "max_length=32", "log_every=1")

PRETRAIN_LOSSES: list[float] = [
    5.815787665049235,
    5.792199846920347,
    5.77876629862752,
    5.746022030823212,
    5.674385650574215,
    5.622354364395141,
    5.608630351109594,
    5.540084281154118,
    5.537960792842664,
    5.558477917054262,
    5.569731558472734,
    5.522175502209436,
]
FINETUNE_LOSSES: list[float] = [
    0.6946247220039368,
    0.6911060214042664,
    0.6986374855041504,
    0.6978511810302734,
    0.6982377767562866,
    0.6990945935249329,
    0.6866880059242249,
    0.6921729445457458,
    0.6945982575416565,
    0.6904578804969788,
    0.6917334794998169,
    0.7001925110816956,
]
CORPUS_SHA256 = {
    "chunks/00000-000.safetensors": "a5274c81c813363a1e83e836372dfb6d",
    "shards/00000-000.safetensors": "50e28fa27648301edafaba284d2bf7aa",
    "vocab.txt": "05cfeea117c6e2eece25d24e6976339a",
}


def write_prose(path: Path) -> None:
    """Write 200 documents of 4 to 15 sentences, with word frequencies that fall like 1/rank."""
    draw = random.Random(0)
    weights = [1 / rank for rank in range(1, len(WORDS) + 1)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(200):
            sentences = []
            for _ in range(draw.randint(4, 15)):
                words = draw.choices(WORDS, weights, k=draw.randint(3, 12))
                sentences.append(" ".join(words).capitalize() + ".")
            file.write(json.dumps({"text": " ".join(sentences)}) + "\n")


def write_mrpc(folder: Path) -> None:
    """Write 64 training and 16 validation pairs in MRPC's own format."""
    folder.mkdir(parents=True)
    draw = random.Random(1)
    for name, count in (("train.tsv", 64), ("dev.tsv", 16)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for number in range(count):
            first = " ".join(draw.choices(WORDS, k=draw.randint(3, 9)))
            second = " ".join(draw.choices(WORDS, k=draw.randint(3, 9)))
            lines.append(f"{number % 2}\t{number}\t{number + 1000}\t{first}\t{second}")
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def sqzb(folder: Path, *arguments: str) -> None:
    """Run one command of sqzb in `folder`, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "sqzb", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def run_all(folder: Path) -> None:
    """Prepare the corpus, pretrain on it and finetune the result, by the commands."""
    write_prose(folder / "prose.jsonl")
    (folder / "corpus.yaml").write_text(CORPUS_RECIPE, encoding="utf-8")
    (folder / "pretrain.yaml").write_text(PRETRAIN_RECIPE, encoding="utf-8")
    write_mrpc(folder / "glue" / "MRPC")

    sqzb(folder, "prepare-corpus", "corpus.yaml", "--output", "corpus", "--workers", "1")
    sqzb(folder, "pretrain", "pretrain.yaml", "--output", "pretrained")
    task = ("--task", "mrpc", "--glue-dir", "glue", "--model", "pretrained")
    sqzb(folder, "finetune", *task, "--output", "finetuned", *FINETUNE_KEYS)


def losses(run: Path) -> list[float]:
    """Return the training loss of each step that the run has logged."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [line["loss"] for line in logged if "loss" in line]


def corpus_hashes(corpus: Path) -> dict[str, str]:
    """Return half of the SHA-256 of each file of tokens and chunks, and of the vocabulary.

    Left out are JSON and YAML files, which describe the corpus: their keys may be renamed.
    """
    hashes = {}
    for path in sorted(corpus.rglob("*")):
        if path.is_file() and path.suffix not in (".json", ".yaml"):
            name = path.relative_to(corpus).as_posix()
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    return hashes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden")
    run_all(path)
    return path


def test_the_corpus_is_the_same_byte_for_byte(folder: Path) -> None:
    assert corpus_hashes(folder / "corpus") == CORPUS_SHA256


def test_pretraining_has_the_same_losses(folder: Path) -> None:
    assert losses(folder / "pretrained") == pytest.approx(PRETRAIN_LOSSES, rel=0, abs=TOLERANCE)


def test_finetuning_has_the_same_losses(folder: Path) -> None:
    assert losses(folder / "finetuned") == pytest.approx(FINETUNE_LOSSES, rel=0, abs=TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        run_all(Path(temporary))
        print(json.dumps(corpus_hashes(Path(temporary) / "corpus"), indent=4))
        print(losses(Path(temporary) / "pretrained"))
        print(losses(Path(temporary) / "finetuned"))
