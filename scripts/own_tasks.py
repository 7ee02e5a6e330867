"""Write small tasks of every kind of label, made from parquet files with a column of text.

    python scripts/own_tasks.py TEXTS.parquet [TEXTS.parquet ...] --out tasks [--examples 2000]

The sentences are those of the files, 6 to 40 words long, each once, in lower case unless the labels
need capitals. No label needs a person:

- ending.csv, three classes: a statement, a question or an exclamation. The sign at the end, which
  tells them apart, is removed.
- letters.csv, a number: the mean number of letters in a word.
- contents.jsonl, several labels: whether the sentence has a number, a quotation, a negation, a
  comma; the signs of quotations and the commas are removed, and numbers stay.
- names.jsonl, tags of words: words in capitals that do not begin the sentence are names (B-NAME,
  I-NAME); the words are in lower case.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sqzb import console
from sqzb.bench.report import parser
from sqzb.draws import Permutation

SENTENCE = re.compile(r"[A-Z][^.?!]*[.?!]")
WORD = re.compile(r"[A-Za-z]+(?:['\u2019][a-z]+)?|\d+")
FEWEST_WORDS, MOST_WORDS = 6, 40
ENDINGS = {".": "statement", "?": "question", "!": "exclamation"}
QUOTES, NEGATIONS = re.compile(r"[\"“”]"), {"not", "no", "never", "none", "nothing", "nor"}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("files", nargs="+", type=Path, help="parquet files with a column text")
    arguments.add_argument("--out", type=Path, required=True, help="the folder to write")
    arguments.add_argument("--examples", type=int, default=2000, help="examples of a task")
    given = arguments.parse_args()

    sentences = list(dict.fromkeys(read_sentences(given.files)))
    order = Permutation(len(sentences), 0, 0)[np.arange(len(sentences))]
    shuffled = [sentences[index] for index in order]
    given.out.mkdir(parents=True, exist_ok=True)
    counts = [
        ("ending.csv", write_endings(given.out / "ending.csv", shuffled, given.examples)),
        ("letters.csv", write_letters(given.out / "letters.csv", shuffled, given.examples)),
        ("contents.jsonl", write_contents(given.out / "contents.jsonl", shuffled, given.examples)),
        ("names.jsonl", write_names(given.out / "names.jsonl", shuffled, given.examples)),
    ]
    rows = [(name, f"{count:,}") for name, count in counts]
    console.table(f"Tasks from {len(sentences):,} sentences", ("file", "examples"), rows)


def read_sentences(files: Sequence[Path]) -> Iterator[str]:
    """Yield the sentences of all documents."""
    for file in files:
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist():
            for sentence in SENTENCE.findall(text):
                plain = " ".join(sentence.split())
                if FEWEST_WORDS <= len(WORD.findall(plain)) <= MOST_WORDS:
                    yield plain


def write_endings(path: Path, sentences: Sequence[str], examples: int) -> int:
    """Write as many sentences of each ending."""
    rows: list[tuple[str, str]] = []
    left = Counter({ending: examples // len(ENDINGS) for ending in ENDINGS})
    for sentence in sentences:
        ending = sentence[-1]
        if left[ending]:
            left[ending] -= 1
            rows.append((sentence[:-1].lower(), ENDINGS[ending]))
    write_csv(path, ("sentence", "ending"), rows)
    return len(rows)


def write_letters(path: Path, sentences: Sequence[str], examples: int) -> int:
    rows = []
    for sentence in sentences[:examples]:
        words = WORD.findall(sentence)
        rows.append((sentence.lower(), f"{sum(map(len, words)) / len(words):.3f}"))
    write_csv(path, ("sentence", "letters"), rows)
    return len(rows)


def write_contents(path: Path, sentences: Sequence[str], examples: int) -> int:
    rows: list[dict[str, object]] = []
    for sentence in sentences[:examples]:
        holds = {
            "number": bool(re.search(r"\d", sentence)),
            "quotation": bool(QUOTES.search(sentence)),
            "negation": bool(NEGATIONS & set(sentence.lower().split())),
            "comma": "," in sentence,
        }
        text = QUOTES.sub("", sentence).replace(",", "").lower()
        contents = [name for name, there in holds.items() if there]
        rows.append({"sentence": text, "contents": contents})
    write_jsonl(path, rows)
    return len(rows)


def write_names(path: Path, sentences: Sequence[str], examples: int) -> int:
    rows: list[dict[str, object]] = []
    for sentence in sentences[:examples]:
        words = WORD.findall(sentence)
        tags: list[str] = []
        for number, word in enumerate(words):
            is_name = number > 0 and word[0].isupper() and word != "I"
            inside = is_name and tags[-1] != "O"
            tags.append("I-NAME" if inside else "B-NAME" if is_name else "O")
        rows.append({"words": [word.lower() for word in words], "tags": tags})
    write_jsonl(path, rows)
    return len(rows)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
