"""Tables of labelled data: files of several formats, folders of them, and data sets of the Hub."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from sqzb import console
from sqzb.data.formats import conll, csv, hub, jsonl, lines, parquet, text
from sqzb.data.formats.common import UNREADABLE, Row, Table, damaged, listed
from sqzb.errors import UserError
from sqzb.folders import expand, walk

# A new format is a module like these and a line here: from the file's ending to the function
# that opens it. Each but parquet is also read compressed.
FORMATS: dict[str, Callable[[str], Table]] = {
    ".csv": csv.open_table,
    ".tsv": csv.open_table,
    ".tab": csv.open_table,
    ".jsonl": jsonl.open_table,
    ".ndjson": jsonl.open_table,
    ".json": jsonl.open_array,
    ".parquet": parquet.open_table,
    ".conll": conll.open_table,
    ".bio": conll.open_table,
    ".iob": conll.open_table,
    ".iob2": conll.open_table,
    ".txt": lines.open_table,
}
IN_FOLDERS = [ending for ending in FORMATS if ending != ".txt"]  # such as README.txt
STANDARD_INPUT = "-"

READABLE = (
    f"{', '.join(FORMATS)} (each but .parquet also with {', '.join(text.COMPRESSIONS)} behind it)"
)
# The beginning of a file's name that says its split, as in dev-00000.parquet.
SPLIT = re.compile("(train|dev|val|valid|validation|eval|test)(?![a-z])")


def open_table(path: str | Path, tokens: bool = False) -> Table:
    """Open a file by its ending. `-` is standard input: JSON lines, or plain lines.

    tokens: whether labels are tags of words; a .txt file is then CoNLL.

    Raises:
        UserError: The file cannot be read, or its ending is not known.
    """
    name = str(path)
    if name == STANDARD_INPUT:
        return _standard_input()
    ending = _ending(name)
    if tokens and ending == ".txt":
        ending = ".conll"
    if ending not in FORMATS:
        raise UserError(
            f"{name} has none of the endings that are known: {READABLE}. "
            "Convert the file, or rename it if its ending is wrong."
        )
    if os.path.isdir(name):
        raise UserError(f"{name} is a folder. Give a file.")
    try:
        return FORMATS[ending](name)
    except UNREADABLE as error:
        raise damaged(name, error) from error


def _ending(name: str) -> str:
    """Return a file's ending in small letters, without that of a compression."""
    path = Path(name.lower())
    if path.suffix in text.COMPRESSIONS:
        path = path.with_suffix("")
        return "" if path.suffix == ".parquet" else path.suffix
    return path.suffix


def _standard_input() -> Table:
    """Open standard input, whose rows can be read once."""
    path = "standard input"
    if sys.stdin is None:
        raise UserError("Standard input is closed. Give a file with --file FILE.")
    opened = text.decoded(sys.stdin.buffer)
    given = text.lines(opened, path)
    first = next(given, None)
    if first is None:
        raise UserError("Standard input is empty. Give a text or a JSON object a line.")
    given = chain([first], given)
    if not first.lstrip().startswith("{"):
        columns = lines.columns_of(first, path)
        return Table(path, columns, "line", lambda wanted: lines.rows(given, path, columns))

    objects = jsonl.objects_of_lines(given, path)
    start = next(objects)

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for number, values in chain([start], objects):
            yield Row(number, values)

    return Table(path, tuple(start[1]), "line", rows)


def tables(
    given: Sequence[str],
    option: str = "--train",
    split: str = "train",
    revision: str | None = None,
    tokens: bool = False,
    commits: Mapping[str, str] | None = None,
) -> list[Table]:
    """Open everything that an option names: files, folders of shards, globs and Hub data sets.

    A folder stands for the readable files in it, at any depth, in the order of their paths.

    option: the name of the option, for messages
    split, revision: of Hub data sets
    tokens: see `open_table`
    commits: of Hub data sets, by what was given, where a run has begun with them

    Raises:
        UserError: Something cannot be read, or a folder has no readable file, files of several
            formats, or files of several splits.
    """
    opened: dict[str, Table] = {}  # a file that two globs match is read once
    for name in given:
        if name.startswith(hub.PREFIX):
            opened[name] = hub.open_table(name, split, (commits or {}).get(name, revision))
            continue
        for file in _files(name, option):
            real = os.path.realpath(file)
            if real not in opened:
                opened[real] = open_table(file, tokens)
    return list(opened.values())


def _files(name: str, option: str) -> list[str]:
    """Return the files that a path or glob names, in order."""
    # os.path answers no where pathlib raises: a name that is too long, a folder without rights.
    if os.path.isdir(name):
        return _shards(Path(name), option)
    if os.path.exists(name):
        return [name]
    matches = [str(file) for file in expand(name).files]
    if not matches:
        hint = ""
        if name.count("/") == 1 and not Path(name).suffix:
            hint = f" A data set of the Hub is {hub.PREFIX}{name}."
        raise UserError(
            f"There is no file, folder or glob {name}. If the data has moved, give its new path "
            f"with {option}.{hint}"
        )
    return matches


def _shards(folder: Path, option: str) -> list[str]:
    """Return the readable files of a folder, which must have one format and one split.

    Entries that are passed over are printed to standard error.

    Raises:
        UserError: The folder or one in it cannot be read, there is no readable file, or the files
            have several formats or splits.
    """
    listing = walk(folder).chosen(lambda path: _ending(path.name) in IN_FOLDERS)
    shards = listing.files
    if not shards:
        names = [str(path.relative_to(folder)) for path, _ in listing.passed]
        raise UserError(
            f"The folder {folder} has no file that can be read; there is: {listed(names)}. "
            f"Give with {option} a file or a folder of files with an ending of "
            f"{', '.join(IN_FOLDERS)}."
        )
    endings = sorted({_ending(path.name) for path in shards})
    if len(endings) > 1:
        raise UserError(
            f"The folder {folder} has files of several formats ({', '.join(endings)}), which may "
            f"be the same data twice. Give one of them: {option} '{folder}/*{endings[0]}'"
        )
    beginnings = [SPLIT.match(path.name.lower()) for path in shards]
    if len({beginning and beginning[0] for beginning in beginnings}) > 1:
        names = [str(path.relative_to(folder)) for path in shards]
        raise UserError(
            f"The folder {folder} has files of several splits: {listed(names)}. Give the files of "
            f"one split: {option} '{folder}/train*'"
        )
    if listing.passed:
        read = console.counted(len(shards), "file")
        about = f"{read} of {folder} for {option}; passed over: {listing.about_passed()}."
        console.err.print(about)
    return [str(path) for path in shards]
