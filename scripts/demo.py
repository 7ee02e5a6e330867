"""A demonstration on Python's documentation: corpus, two phases of pretraining, a paraphrase task.

    python scripts/demo.py

Runs the commands that a user would type, in runs/demo, and ends with a table of results.
"""

import json
import random
import re
import shutil
import time
from pathlib import Path

from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.corpus.formats import python_docs

FOLDER = Path("runs/demo")
GLUE = FOLDER / "glue"
TRAIN_PAIRS, VALIDATION_PAIRS = 9000, 400


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    run_sqzb("prepare-corpus", "recipes/demo_corpus.yaml")
    run_sqzb("pretrain", "recipes/demo_phase1.yaml")
    run_sqzb("pretrain", "recipes/demo_phase2.yaml")
    write_paraphrases(GLUE / "MRPC")
    run_sqzb("finetune", "--recipe", "recipes/demo_paraphrase.yaml", "--glue-dir", str(GLUE))
    run_sqzb(
        "eval",
        str(FOLDER / "phase2"),
        "--corpus",
        str(FOLDER / "corpus"),
        "--json",
        str(FOLDER / "pretrained.json"),
        "--overwrite",
    )
    run_sqzb(
        "eval",
        str(FOLDER / "paraphrase"),
        "--glue-dir",
        str(GLUE),
        "--json",
        str(FOLDER / "paraphrase.json"),
        "--overwrite",
    )
    show(time.monotonic() - started)


def write_paraphrases(folder: Path) -> None:
    """Write a task in MRPC's own format: whether two sentences are paraphrases.

    Both are sentences of Python's documentation with some words left out. A paraphrase comes from
    the same sentence, the opposite from another one of the same length. No sentence of the
    validation part is in the training part.
    """
    draw = random.Random(0)
    distinct: set[str] = set()
    for document in python_docs.read():
        distinct |= set(re.split(r"(?<=[.:])\s+", document))
    sentences = sorted(sentence for sentence in distinct if 6 <= len(sentence.split()) <= 20)
    draw.shuffle(sentences)
    held = len(sentences) // 6
    for name, part, n in (
        ("dev.tsv", sentences[:held], VALIDATION_PAIRS),
        ("train.tsv", sentences[held:], TRAIN_PAIRS),
    ):
        rows = [pair(draw, part) for _ in range(n)]
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [
            f"{label}\t{2 * i}\t{2 * i + 1}\t{first}\t{second}"
            for i, (label, first, second) in enumerate(rows)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def pair(draw: random.Random, sentences: list[str]) -> tuple[int, str, str]:
    label = draw.randrange(2)
    first = draw.choice(sentences)
    length = len(first.split())
    others = [
        other for other in sentences if other != first and abs(len(other.split()) - length) <= 2
    ]
    reworded = reword(draw, first)
    second = first if label or not others else draw.choice(others)
    return label, reworded, reword(draw, second)


def reword(draw: random.Random, sentence: str) -> str:
    words = sentence.split()
    return " ".join(word for word in words if draw.random() > 0.2) or words[0]


def show(seconds: float) -> None:
    corpus = json.loads((FOLDER / "corpus" / "manifest.json").read_text())
    pretrained = json.loads((FOLDER / "pretrained.json").read_text())["length_128"]
    paraphrase = json.loads((FOLDER / "paraphrase.json").read_text())
    dev = (GLUE / "MRPC" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    positive = sum(line.startswith("1") for line in dev) / len(dev)
    nats = f"{pretrained['heldout_mlm_loss']:.2f} nats"
    rows = [
        ("masked tokens, loss", nats, f"{corpus['heldout_unigram_nats']:.2f} (unigram)"),
        ("masked tokens, accuracy", f"{pretrained['heldout_mlm_accuracy']:.1%}", ""),
        ("sentence order, accuracy", f"{pretrained['heldout_sop_accuracy']:.1%}", "50.0%"),
        (
            "paraphrase, accuracy",
            f"{paraphrase['accuracy']:.1%}",
            f"{max(positive, 1 - positive):.1%} (majority)",
        ),
    ]
    console.table(
        f"What was learnt in {console.duration(seconds)}",
        ("held out", "measured", "baseline"),
        rows,
    )
    console.out.print(
        f"The pretrained model is in {FOLDER / 'phase2/final'}, the finetuned one in "
        f"{FOLDER / 'paraphrase/final'}:\n"
        "folders that sqzb and transformers open."
    )


if __name__ == "__main__":
    main()
