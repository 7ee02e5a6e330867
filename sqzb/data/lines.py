"""Examples without labels in a text file: one a line, with a tab between two sentences."""

from collections.abc import Sequence
from pathlib import Path

from sqzb.errors import UserError

Sentences = tuple[str, ...]  # one, or two of a pair; none for a line without text
NUMBERS = ("no sentence", "one sentence", "two sentences")  # of an example


def read_lines(file: Path) -> list[Sentences]:
    """Return the sentences of each line, separated by a tab; none for a line without text.

    Raises:
        UserError: the file cannot be read as UTF-8, or a line has more than one tab.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as opened:
            lines = [line.removesuffix("\r") for line in opened.read().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}). Give a text file in UTF-8.") from error
    lines = lines[:-1] if not lines[-1] else lines  # the end of the last line begins no line
    texts = [tuple(line.split("\t")) if line.strip() else () for line in lines]
    for number, sentences in enumerate(texts, 1):
        if len(sentences) > 2:
            raise UserError(
                f"{file}:{number} has {len(sentences) - 1} tabs. A line is one sentence, or two "
                "separated by a tab."
            )
    return texts


def check_sentences(
    name: str, texts: int, rows: Sequence[Sentences], file: Path | None = None
) -> None:
    """Check that each row has as many texts as the examples of the data set; skip empty rows.

    name, texts: of the data set.
    file: the file of the rows, for the message.

    Raises:
        UserError: a row has another number of texts.
    """
    for number, row in enumerate(rows, 1):
        if row and len(row) != texts:
            where = "" if file is None else f"{file}:{number}: "
            raise UserError(
                f"{where}{name} takes {NUMBERS[texts]}, and here is {NUMBERS[len(row)]}."
            )
