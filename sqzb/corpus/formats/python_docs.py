"""Python's own documentation: English prose that every CPython has, without a download."""

import re
from collections.abc import Iterator

from sqzb.corpus.formats.common import Part, Piece

NAME = "python-docs"  # as a source's path, and in units.json

BLANK_LINES = re.compile(r"\n\s*\n")
SENTENCES = re.compile(r"[A-Z].*[.:]")


def divide() -> Piece:
    """Return the documentation as one piece."""
    return Piece(Part(NAME, 0, 1), 0)


def read() -> Iterator[str]:
    """Yield the running text of each topic as a document, in the order of the topics' names.

    A topic without running text is an empty document.
    """
    from pydoc_data.topics import topics

    for _, topic in sorted(topics.items()):
        yield "\n\n".join(_running_text(topic))


def _running_text(topic: str) -> Iterator[str]:
    """Yield the paragraphs that start at the margin with a capital and end as a sentence does.

    Code, grammar, tables and headings are left out.
    """
    for block in BLANK_LINES.split(topic):
        if block.startswith(" "):
            continue
        paragraph = " ".join(block.split())
        if SENTENCES.fullmatch(paragraph) and "::=" not in paragraph:
            yield paragraph
