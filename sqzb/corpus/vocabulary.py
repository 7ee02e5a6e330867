"""The vocabulary of a corpus: loaded, or trained on a sample of the text."""

import math
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.sources import Unit, documents
from sqzb.corpus.text import Cleaner
from sqzb.draws import Permutation
from sqzb.hub import local_folder
from sqzb.recipe import CorpusRecipe
from sqzb.tokenizer import TOKENIZER_FILES, load_tokenizer, save_tokenizer, train_tokenizer


def vocabulary_of(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> Tokenizer:
    """Return the tokenizer of the corpus. The first call loads or trains it and saves it."""
    vocabulary = recipe.vocabulary
    if all((folder / name).exists() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(folder)
    elif vocabulary.path is not None:
        path = Path(vocabulary.path)
        tokenizer = load_tokenizer(path if path.is_file() else local_folder(vocabulary.path))
    else:
        console.out.print(f"Training a vocabulary of {vocabulary.size:,} WordPieces.")
        sample = _sample(recipe, work)
        tokenizer = train_tokenizer(
            sample, vocabulary.size, vocabulary.lowercase, vocabulary.strip_accents, show=True
        )
    save_tokenizer(tokenizer, folder, max(recipe.sequence_lengths))
    return tokenizer


def _sample(recipe: CorpusRecipe, work: list[Unit]) -> Iterator[str]:
    """Yield cleaned text from the start of each unit, in random order, the same amount of each."""
    order = Permutation(len(work), recipe.seed)[range(len(work))]
    share = math.ceil(recipe.vocabulary.sample_characters / len(work))
    characters = 0

    def whole_units(done: int) -> str:
        return f"{done // share:,}"

    with console.bar("Reading a sample", len(work) * share, unit=whole_units) as bar:
        for number, index in enumerate(order):
            left = share
            for text in _cleaned(recipe, work[index]):
                yield text[:left]
                characters += min(left, len(text))
                left -= len(text)
                bar.to(number * share + min(share, share - left), _millions(characters))
                if left <= 0:
                    break
            bar.to((number + 1) * share)  # a unit may have less text than its share


def _millions(characters: int) -> str:
    return f"{characters / 1e6:,.1f} million characters"


def _cleaned(recipe: CorpusRecipe, unit: Unit) -> Iterator[str]:
    """Yield the cleaned documents of a unit, a paragraph a sentence."""
    source = recipe.sources[unit.source]
    cleaner = Cleaner(recipe, source)
    for row in documents(unit, source):
        if isinstance(row, str) and (document := cleaner.document(row)) is not None:
            yield "\n\n".join(document.sentences)
