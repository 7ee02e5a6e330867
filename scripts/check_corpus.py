"""Test of prepare-corpus on real text: killed at random it writes the same files, with the text.

    python scripts/check_corpus.py --vocab VOCAB.TXT --text FOLDER [--text FOLDER ...]
        [--kills 5] [--chunks 1000]

The script prepares a corpus undisturbed, then a second one whose process group gets SIGKILL at
random moments until it is left to finish, and compares all files. Then it decodes random chunks and
looks for each of them in its normalised source.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer

from sqzb import console
from sqzb.bench.report import parser
from sqzb.corpus.build import verify
from sqzb.corpus.manifest import RECIPE
from sqzb.corpus.sources import documents, units
from sqzb.corpus.store import TRAIN, Corpus
from sqzb.corpus.text import Cleaner
from sqzb.files import sha256
from sqzb.recipe import CorpusRecipe, load_recipe
from sqzb.tokenizer import CONTINUATION, UNK


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--text", action="append", required=True, help="a file, folder or glob; repeat it for more"
    )
    arguments.add_argument("--vocab", required=True, help="vocab.txt or tokenizer.json")
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--chunks", type=int, default=1000)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as there:
        whole, killed = Path(there) / "whole", Path(there) / "killed"
        started = time.monotonic()
        start(whole, given.text, given.vocab).wait()
        seconds = time.monotonic() - started
        console.out.print(f"Undisturbed: {seconds:.1f} s")
        for _ in range(given.kills):
            process = start(killed, given.text, given.vocab)
            # Early, so that work is left for the next start.
            time.sleep(random.uniform(0.05, 0.3) * seconds)
            if process.poll() is not None:
                sys.exit("It ended before it could be killed: give more text.")
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=True)
            console.out.print(
                f"SIGKILL: {len(list(killed.glob('shards/*.json')))} shards are finished"
            )
        start(killed, given.text, given.vocab).wait()
        one, other = hashes(whole), hashes(killed)
        console.out.print(
            f"{sum(one[name] == other.get(name) for name in one)} of {len(one)} files are the same"
        )
        verify(killed)
        n = found(Corpus(killed), load_recipe(CorpusRecipe, killed / RECIPE), given.chunks)
        console.out.print(f"{n:,} of {given.chunks:,} chunks stand in their source")
        sys.exit(one != other or n < given.chunks)


def start(output: Path, texts: list[str], vocab: str) -> "subprocess.Popen[bytes]":
    sources = [f"sources.text{number}.path={text}" for number, text in enumerate(texts)]
    given = [
        "sources.wikipedia=null",
        "sources.bookcorpus=null",
        *sources,
        f"vocabulary.path={vocab}",
    ]
    command = [
        sys.executable,
        "-m",
        "sqzb",
        "prepare-corpus",
        "recipes/corpus.yaml",
        "--output",
        str(output),
        *given,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of all files but the recipe, which names the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECIPE)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def found(corpus: Corpus, recipe: CorpusRecipe, n: int) -> int:
    """Return how many of `n` random chunks occur in the text, compared without white space.

    [UNK] matches anything.
    """
    chunks = corpus.split(TRAIN, recipe.sequence_lengths[0])
    wanted = [
        pieces(corpus.tokenizer, chunks[random.randrange(len(chunks))].tokens.tolist())
        for _ in range(n)
    ]
    missing = set(range(n))
    for name, source in recipe.sources.items():
        cleaner = Cleaner(recipe, source)
        for unit in units(name, source):
            kept = [
                cleaner.document(row) for row in documents(unit, source) if isinstance(row, str)
            ]
            sentences = [" ".join(document.sentences) for document in kept if document is not None]
            normalized = corpus.tokenizer.normalizer.normalize_str("\n".join(sentences))
            text = "".join(normalized.split(" "))
            for number in list(missing):
                if all(piece in text for piece in wanted[number]):
                    missing.remove(number)
    return n - len(missing)


def pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    words = [str(tokenizer.id_to_token(token)).removeprefix(CONTINUATION) for token in tokens]
    return "".join(f" {UNK} " if word == UNK else word for word in words).split(f" {UNK} ")


if __name__ == "__main__":
    main()
