"""Small own data of every kind, whose labels follow from the letters of a text, for runs in
tests.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqzb.data.own import KindName, OwnData, OwnFiles, open_own

LETTERS = "abcdefgh"
KINDS: tuple[KindName, ...] = ("classes", "number", "labels", "tokens")
TAGS = {"a": "B-X", "b": "I-X", "c": "B-Y"}


def rows(kind: KindName, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows of a kind. Numbers are around 1,000, with a spread of about 50."""
    draw = random.Random(seed)
    for _ in range(count):
        words = draw.choices(LETTERS, k=draw.randint(2, 6))
        text = " ".join(words)
        if kind == "classes":
            yield {
                "text": text,
                "label": ["low", "mid", "top"][(words[0] > "f") + (words[0] > "c")],
            }
        elif kind == "number":
            yield {"text": text, "label": 1000 + 60.5 * words.count("a") - 20.25 * words.count("b")}
        elif kind == "labels":
            yield {"text": text, "label": [letter for letter in "abc" if letter in words]}
        else:
            yield {"words": words, "tags": [TAGS.get(word, "O") for word in words]}


def write_own(folder: Path, kind: KindName, train: int = 160, validation: int = 48) -> OwnFiles:
    """Write training and validation rows under `folder`; return what names them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed, count in enumerate((train, validation)):
        path = folder / f"{kind}_{seed}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows(kind, count, seed)))
        paths.append((str(path),))
    return OwnFiles(train=paths[0], validation=paths[1], kind=kind)


def own_data(folder: Path, kind: KindName) -> OwnData:
    """Return a data set of new files under `folder`."""
    return open_own(write_own(folder, kind))
