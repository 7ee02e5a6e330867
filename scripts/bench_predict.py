"""Sentences a second of sqzb's predictions, beside transformers' pipeline("text-classification").

    python scripts/bench_predict.py --model RUN --file FILE [--text COLUMN] [--texts 300]
        [--rounds 3] [--json FILE]

Contestants take turns in one process, with the same texts, model folder and threads
(OMP_NUM_THREADS): sqzb's `load(RUN).predict(texts)`; the pipeline as most people call it, one text
at a time; and the pipeline with the same care, batches of 32 texts in the order of their lengths.
Models are loaded before the first turn. The tokeniser alone is timed too. The labels and
probabilities of all contestants are compared first.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import pipeline

from sqzb import console, load
from sqzb.bench.race import Spread, race
from sqzb.bench.report import hardware, parser, write_report
from sqzb.data.formats import open_table
from sqzb.data.texts import choose_texts
from sqzb.finetuning.predict import EVALUATION_BATCH
from sqzb.hub import local_folder
from sqzb.tokenizer import load_tokenizer
from sqzb.using import ClassPrediction

SQZB = "sqzb"
PIPELINE, SORTED = "pipeline", f"pipeline, sorted batches of {EVALUATION_BATCH}"
TOKENISER = "sqzb's tokeniser alone"

Answers = list[dict[str, float]]  # of each text the probability by label


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--model", required=True, help="finetuned run or saved model")
    arguments.add_argument("--file", required=True, help="table with texts")
    arguments.add_argument("--text", help="column of the texts")
    arguments.add_argument("--texts", type=int, default=300, help="number of texts to predict")
    given = arguments.parse_args()
    texts = first_texts(given.file, given.text, given.texts)
    contestants = make(given.model)
    check_same({name: answer(texts) for name, answer in contestants.items()})

    tokenizer = load_tokenizer(local_folder(given.model))
    timed: dict[str, Callable[[int], float]] = {
        name: lambda number, answer=answer: seconds(answer, texts)  # type: ignore[misc]
        for name, answer in contestants.items()
    }
    timed[TOKENISER] = lambda number: seconds(tokenizer.encode_batch, texts)
    runs = race(timed, given.rounds)
    rates = {name: [len(texts) / took for took in of_one] for name, of_one in runs.items()}
    show(rates, len(texts))
    write_report(given.json, texts=len(texts), threads=torch.get_num_threads(), rates=rates)


def first_texts(file: str, column: str | None, most: int) -> list[str]:
    """Return the first texts of a table, without empty ones."""
    texts = choose_texts(open_table(file), [] if column is None else [column], [], 1)
    found: list[str] = []
    for row in texts.table.rows():
        text = texts.text(row)
        if isinstance(text, str) and len(found) < most:
            found.append(text)
    return found


def make(path: str) -> dict[str, Callable[[Sequence[str]], Answers]]:
    """Return the contestants, with their models loaded."""
    model = load(path)
    folder = str(local_folder(path))
    tokens: dict[str, Any] = {"truncation": True, "max_length": model.max_length}
    theirs: Any = pipeline("text-classification", model=folder, top_k=None)

    def ours(texts: Sequence[str]) -> Answers:
        predictions = model.predict(texts)
        return [each.probabilities for each in predictions if isinstance(each, ClassPrediction)]

    def one_by_one(texts: Sequence[str]) -> Answers:
        return [by_label(answer) for answer in theirs(list(texts), **tokens)]

    def in_batches(texts: Sequence[str]) -> Answers:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        in_order = [texts[row] for row in order]
        answers = theirs(in_order, batch_size=EVALUATION_BATCH, **tokens)
        by_row = dict(zip(order, answers, strict=True))
        return [by_label(by_row[row]) for row in range(len(texts))]

    return {SQZB: ours, PIPELINE: one_by_one, SORTED: in_batches}


def by_label(answer: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the pipeline's answer for one text as probabilities by label."""
    return {entry["label"]: entry["score"] for entry in answer}


def check_same(answers: dict[str, Answers]) -> None:
    """Stop where a contestant has other labels or probabilities than sqzb."""
    most = 0.0
    for of_one in answers.values():
        for ours, theirs in zip(answers[SQZB], of_one, strict=True):
            most = max(most, *(abs(ours[label] - theirs[label]) for label in ours))
    console.out.print(f"largest difference of two probabilities: {most:.1e}")
    assert most < 1e-3, "the contestants do not predict the same"


def seconds(call: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    started = time.perf_counter()
    call(texts)
    return time.perf_counter() - started


def show(rates: dict[str, list[float]], texts: int) -> None:
    """Print sentences a second, and how many times as many sqzb has in the same round."""
    rows = []
    for name, of_one in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[SQZB], of_one, strict=True)]
        rows.append((name, Spread.of(of_one).text(".1f"), Spread.of(ratios).text(".2f")))
    title = f"{texts} texts on {hardware()}, {torch.get_num_threads()} threads"
    console.table(title, ("contestant", "sentences/s (spread)", "sqzb's ratio (spread)"), rows)


if __name__ == "__main__":
    main()
