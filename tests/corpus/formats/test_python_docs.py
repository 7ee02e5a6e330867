"""Python's documentation: running prose."""

from sqzb.corpus.formats import python_docs
from sqzb.recipe import Source
from text_files import read


def test_python_docs_are_running_prose() -> None:
    texts = [text for text in read(Source(path=python_docs.NAME)) if text]
    assert len(texts) > 30 and sum(map(len, texts)) > 100_000
    assert all(
        paragraph[0].isupper() and paragraph[-1] in ".:"
        for text in texts
        for paragraph in text.split("\n\n")
    )
