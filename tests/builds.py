"""What the tests of prepare-corpus ask of a recipe and of the corpus that it makes."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sqzb.corpus.sources import documents, units
from sqzb.corpus.store import Corpus
from sqzb.corpus.text import Cleaner, Document
from sqzb.recipe import CorpusRecipe


def at(recipe: CorpusRecipe, output: Path, **changes: Any) -> CorpusRecipe:
    return recipe.model_copy(update={"output": str(output), **changes})


def texts_of(recipe: CorpusRecipe) -> list[str]:
    found = []
    for name, source in recipe.sources.items():
        found += [
            text
            for unit in units(name, source)
            for text in documents(unit, source)
            if isinstance(text, str)
        ]
    return found


def cleaned(recipe: CorpusRecipe) -> list[Document]:
    """The documents that no rule of cleaning drops."""
    cleaner = Cleaner(recipe, next(iter(recipe.sources.values())))
    return [
        document for text in texts_of(recipe) if (document := cleaner.document(text)) is not None
    ]


def tokens_of(corpus: Corpus, document: Document) -> list[int]:
    encoded = corpus.tokenizer.encode_batch(document.sentences, add_special_tokens=False)
    return [number for encoding in encoded for number in encoding.ids]


def split_tokens(corpus: Corpus, split: str) -> list[int]:
    """All tokens of a split: nothing is cut off where text is cut to chunks."""
    chunks = corpus.split(split, corpus.manifest["sequence_lengths"][0])
    return [int(token) for number in range(len(chunks)) for token in chunks[number].tokens]


def as_text(numbers: list[int]) -> str:
    return f" {' '.join(map(str, numbers))} "


def stops(
    patched: pytest.MonkeyPatch, module: ModuleType, step: str, after: int, error: Any
) -> None:
    """Raise at a step, when it has been taken so often."""
    own, calls = getattr(module, step), []

    def stopping(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > after:
            raise error
        return own(*args)

    patched.setattr(module, step, stopping)
