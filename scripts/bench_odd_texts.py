"""Seconds that prepare-corpus needs for 1 MB of odd text: repeated marks, markup, long words.

    python scripts/bench_odd_texts.py --vocab VOCAB.TXT [--random 100] [--seed 1] [--json FILE]

Each text is one document, a few characters repeated, and goes through the whole of prepare-corpus
in one process: read, clean, split, tokenise, count, cut, write. The table names the slowest, and
what a text of one sentence takes: the part that does not depend on the text.
"""

import random
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from sqzb import console
from sqzb.bench.race import Spread
from sqzb.bench.report import hardware, parser, write_report
from sqzb.corpus.build import build
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, Source, Vocabulary

SIZE = 1_000_000  # bytes of UTF-8
# Each was slow in some version, or is slow in a library that prepare-corpus uses.
KNOWN = [
    *("x <ref ", "« a. ", "\u2018``", "``", "''", "« ", "»", "“a", '"a. ', "'a ", "(a. ", "`a' "),
    *("<br ", "&#", "&#9", "[[", "[1] ", "=", "1.", "e\u0301", "\u0301\u0327", "a" + "\u0301" * 9),
    *("word ", "x", "Mr. ", "A. ", "a.b", "한 ", "ก", "中。", "\U0001f600", "\t\n", " \n\n"),
    "\uff1f\uff01",
    # With sentence ends, so that the marks are tokenised too.
    *(
        "\u2018``" * 500 + "a. B",
        "``" * 2000 + "a. B",
        "''" * 2000 + "a. B",
        "\uff1f\uff01" * 500 + "a. B",
    ),
]
PIECES = [
    *"«»“”\"'()[]<>{}|=\u2018\u2019`.!?,;:。@-_/\\&# \n\t",
    *("a", "A", "9", "e\u0301", "x@y.zz ", "A. ", "Mr. ", "[1] ", "``", "''", "<ref ", "</ref>"),
    *("<br ", "&#", "&amp;", "( ,", "e+1", "1.", "\u0301", "\u0327", "\u0f73", "한", "ก", "中"),
]
SENTENCE = "This is a sentence. "
SHOWN = 10


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--vocab", required=True, help="vocab.txt or tokenizer.json")
    arguments.add_argument("--random", type=int, default=100, help="number of random texts")
    arguments.add_argument("--seed", type=int, default=1, help="seed of the random texts")
    given = arguments.parse_args()

    draws = random.Random(given.seed)
    drawn = ["".join(draws.choices(PIECES, k=draws.randint(2, 4))) for _ in range(given.random)]
    seconds = {piece: _seconds(piece, given.vocab) for piece in [*KNOWN, *drawn]}
    least = [_seconds(SENTENCE, given.vocab, len(SENTENCE)) for _ in range(given.rounds)]

    slowest = sorted(seconds, key=lambda piece: -seconds[piece])[:SHOWN]
    rounds = {
        piece: [seconds[piece], *(_seconds(piece, given.vocab) for _ in range(given.rounds - 1))]
        for piece in slowest
    }
    rows = [(_name(piece), Spread.of(values).text(".2f")) for piece, values in rounds.items()]
    rows.append(("one sentence, once", Spread.of(least).text(".2f")))
    title = f"CPU seconds for 1 MB, the slowest of {len(seconds)} texts, {hardware()}"
    console.table(title, ("repeated", "seconds"), rows)
    write_report(given.json, least=least, first_round=seconds, slowest=rounds)


def _name(piece: str) -> str:
    """Return a repeated piece as the table shows it; a long one by its beginning and its end."""
    return repr(piece) if len(piece) < 12 else f"{piece[:6]!r} ... {piece[-4:]!r}"


def _seconds(piece: str, vocabulary: str, size: int = SIZE) -> float:
    """Return the CPU seconds of prepare-corpus for a repeated piece, in all `size` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "odd.txt"
        text.write_text(piece * (size // len(piece.encode())), encoding="utf-8")
        recipe = CorpusRecipe(
            output=str(Path(folder) / "corpus"),
            sources={"odd": Source(path=str(text))},
            vocabulary=Vocabulary(path=vocabulary),
            min_characters=1,
            heldout=0,
        )
        started = time.process_time()
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said), suppress(UserError):  # nothing is left
            build(recipe, workers=1)
        return time.process_time() - started


if __name__ == "__main__":
    main()
