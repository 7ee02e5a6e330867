"""Speed of prepare-corpus beside its peers, on the same text and the same cores.

    python scripts/bench_corpus.py --text FOLDER [--text FOLDER ...] --vocab VOCAB.TXT
        [--megabytes 100] [--json FILE]

The contestants take turns, each in a process of its own:
    tokenizers    encode_batch on all cores and nothing else: the bound for prepare-corpus
    sqzb          `sqzb prepare-corpus`, the whole command: read, clean, split, tokenise, cut to
                  lengths 128 and 512, write
    datasets.map  read, tokenise with a fast tokenizer, join, cut to 128, write Arrow files
    BERT          the method of Google's create_pretraining_data.py: one process, one document at a
                  time, in plain Python; on a fiftieth of the text
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import parser, write_report
from sqzb.corpus.sources import documents, units
from sqzb.recipe import CorpusRecipe, Source, Vocabulary
from sqzb.tokenizer import CONTINUATION, UNK, load_tokenizer
from sqzb.words import LONGEST_WORD

PROJECTED = 25e9  # bytes of English Wikipedia and BookCorpus
BERT_SHARE = 50

Figures = dict[str, float]


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument(
        "--text", action="append", required=True, help="a file, folder or glob; repeat it for more"
    )
    arguments.add_argument("--vocab", required=True, help="vocab.txt or tokenizer.json")
    arguments.add_argument(
        "--megabytes", type=float, default=100, help="of text to measure on, taken evenly from all"
    )
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--run", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run:
        print(json.dumps(measure(given.run, Path(given.text[0]), Path(given.vocab), given.workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.parquet"
        size = write_sample(sample, given.text, given.megabytes * 1e6)
        console.out.print(
            f"{console.size(size)} of text, {given.workers} cores, {given.rounds} rounds"
        )
        contestants = {
            name: process(name, sample, given.vocab, given.workers) for name in CONTESTANTS
        }
        runs = race(contestants, given.rounds)
    show(runs)
    write_report(given.json, runs=runs)


def process(name: str, sample: Path, vocab: str, workers: int) -> Callable[[int], Figures]:
    """Return a contestant of the race, which measures itself in a process of its own."""
    command = [sys.executable, __file__, "--run", name, "--text", str(sample)]
    command += ["--vocab", vocab, "--workers", str(workers)]

    def run(number: int) -> Figures:
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{name} failed:\n{ended.stderr}")
        figures: Figures = json.loads(ended.stdout.splitlines()[-1])
        return figures

    return run


def write_sample(path: Path, texts: list[str], size: float) -> int:
    """Write about `size` bytes of documents to a parquet file, and return the bytes written.

    Every unit of a source gives the same share.
    """
    taken = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for text in texts:
            source = Source(path=text)
            work = units("text", source)
            for unit in work:
                due, rows = size / len(texts) / len(work), []
                for document in documents(unit, source):
                    if due <= 0:
                        break
                    assert isinstance(document, str)
                    rows.append(document)
                    due -= len(document.encode())
                taken += sum(len(row.encode()) for row in rows)
                writer.write_table(
                    pa.table({"text": rows}, schema=writer.schema), row_group_size=100
                )
    return taken


def measure(name: str, sample: Path, vocab: Path, workers: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = CONTESTANTS[name](sample, vocab, workers, Path(folder))
    peaks = [
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return {
        "bytes": size,
        "seconds": seconds,
        "peak_bytes": max(peaks),
        "cores": 1 if name == "BERT" else workers,
    }


def texts_of(sample: Path) -> list[str]:
    texts: list[str] = pq.read_table(sample)["text"].to_pylist()
    return texts


def size_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


# Contestants: (sample, vocabulary, cores, a folder to write to) -> (seconds, bytes of text)


def tokenizers_alone(sample: Path, vocab: Path, workers: int, folder: Path) -> tuple[float, int]:
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    texts, tokenizer = texts_of(sample), load_tokenizer(vocab)
    started = time.perf_counter()
    for start in range(0, len(texts), 64):
        tokenizer.encode_batch_fast(texts[start : start + 64], add_special_tokens=False)
    return time.perf_counter() - started, size_of(texts)


def prepare_corpus(sample: Path, vocab: Path, workers: int, folder: Path) -> tuple[float, int]:
    recipe = CorpusRecipe(
        output=str(folder / "corpus"),
        sources={"text": Source(path=str(sample), wiki_leftovers=True)},
        vocabulary=Vocabulary(path=str(vocab)),
        sequence_lengths=[128, 512],
    )
    (folder / "recipe.yaml").write_text(json.dumps(recipe.model_dump()))
    command = [
        sys.executable,
        "-m",
        "sqzb",
        "prepare-corpus",
        str(folder / "recipe.yaml"),
        "--workers",
        str(workers),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, size_of(texts_of(sample))


def datasets_map(sample: Path, vocab: Path, workers: int, folder: Path) -> tuple[float, int]:
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(vocab), unk_token=UNK)

    def tokenise(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["text"], add_special_tokens=False, return_token_type_ids=False)

    def group(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        together = {key: list(chain.from_iterable(column)) for key, column in rows.items()}
        end = len(together["input_ids"]) // 128 * 128
        chunks: dict[str, list[list[int]]] = {}
        for key, column in together.items():
            chunks[key] = [column[n : n + 128] for n in range(0, end, 128)]
        return chunks

    started = time.perf_counter()
    data = load_dataset("parquet", data_files=str(sample), split="train", cache_dir=str(folder))
    data = data.map(
        tokenise, batched=True, batch_size=64, num_proc=workers, remove_columns=["text"]
    )
    data.map(group, batched=True, batch_size=64, num_proc=workers)
    return time.perf_counter() - started, size_of(texts_of(sample))


def google_bert(sample: Path, vocab: Path, workers: int, folder: Path) -> tuple[float, int]:
    numbers = {
        token: number for number, token in enumerate(vocab.read_text(encoding="utf-8").split("\n"))
    }
    texts = texts_of(sample)[::BERT_SHARE]
    started = time.perf_counter()
    with (folder / "examples.jsonl").open("w") as out:
        for text in texts:
            chunk: list[str] = []
            for line in text.split("\n"):
                sentence = list(word_pieces(line, numbers))
                if chunk and len(chunk) + len(sentence) > 125:
                    out.write(json.dumps([numbers[piece] for piece in chunk]) + "\n")
                    chunk = []
                chunk += sentence[:125]
            if chunk:
                out.write(json.dumps([numbers[piece] for piece in chunk]) + "\n")
    return time.perf_counter() - started, size_of(texts)


def word_pieces(text: str, numbers: dict[str, int]) -> Iterator[str]:
    """Split as BERT's tokenization.py: no accents, punctuation apart, the longest known pieces."""
    for word in basic_words(text.lower()):
        pieces: list[str] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else CONTINUATION + word[start:end]
                if piece in numbers:
                    break
            else:
                break
            pieces.append(piece)
            start = end
        yield from pieces if start == len(word) else [UNK]


def basic_words(text: str) -> Iterator[str]:
    word = ""
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if category == "Mn":
            continue
        apart = category.startswith("P") or (
            character.isascii() and not character.isalnum() and character.isprintable()
        )
        if character.isspace() or apart:
            if word:
                yield word
            word = ""
            if apart and not character.isspace():
                yield character
        else:
            word += character
    if word:
        yield word


CONTESTANTS: dict[str, Callable[[Path, Path, int, Path], tuple[float, int]]] = {
    "tokenizers": tokenizers_alone,
    "sqzb": prepare_corpus,
    "datasets.map": datasets_map,
    "BERT": google_bert,
}


def show(runs: dict[str, list[Figures]]) -> None:
    speeds: dict[str, Spread] = {}
    for name, of_one in runs.items():
        speeds[name] = Spread.of([run["bytes"] / run["seconds"] for run in of_one])
    rows = []
    for name, of_one in runs.items():
        speed, cores = speeds[name].middle, of_one[0]["cores"]
        peak = console.size(int(max(run["peak_bytes"] for run in of_one)))
        figures = (
            f"{speed / 1e6:.2f}",
            speeds[name].ends(".2f", 1e-6),
            f"{speed / cores / 1e6:.2f}",
        )
        share = f"{speed / speeds['tokenizers'].middle:.0%}"
        rows.append((name, *figures, share, peak, console.duration(PROJECTED / speed)))
    header = ("", "MB/s", "spread", "a core", "share", "largest process", "25 GB")
    console.table("From text to training data", header, rows)


if __name__ == "__main__":
    main()
