"""Data sets of the Hugging Face Hub: hub:owner/name, or hub:owner/name:config."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqzb.data.formats.common import Row, Table
from sqzb.errors import UserError
from sqzb.hub import HUB_ID

PREFIX = "hub:"
COMMIT = re.compile("[0-9a-f]{40}")
ROWS_AT_ONCE = 1024


def open_table(given: str, split: str, revision: str | None) -> Table:
    """Open a split of a Hub data set, or of its copy in the local cache. Its scripts never run.

    Values of columns with class names are these names; -1, the Hub's mark of a label that is
    withheld, is None.

    Raises:
        UserError: The name is no Hub id, there is no such data set, config, split or revision, or
            the Hub cannot be reached.
    """
    name, _, config = given.removeprefix(PREFIX).partition(":")
    if not HUB_ID.fullmatch(name):
        raise UserError(
            f"{given} is no data set of the Hub. Give {PREFIX}owner/name or "
            f"{PREFIX}owner/name:config."
        )
    data, commit = _open(given, name, config or None, split, revision)
    path = f"{given}, split {split}"
    return Table(
        path,
        tuple(data.column_names),
        "row",
        lambda wanted: _rows(data, path, list(wanted)),
        commit,
    )


def _open(
    given: str, name: str, config: str | None, split: str, revision: str | None
) -> tuple[Any, str]:
    """Return the split and the data set's commit."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        builder.download_and_prepare()
        data = builder.as_dataset(split=split)
    except Exception as error:  # datasets lets through whatever its network clients raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"Split {split!r} of {given} could not be had from the Hub, nor from its local cache "
            f"({reason}). Check the name, the config behind a second colon, data.split and "
            "data.revision; connect to the network once (with HF_HUB_OFFLINE unset); for a private "
            "data set, run `hf auth login`."
        ) from error
    if COMMIT.fullmatch(revision or "") and builder.hash != revision:
        raise UserError(
            f"{given} at commit {revision} could not be had from the Hub, and the newest copy in "
            f"the local cache is of commit {builder.hash}. Connect to the network."
        )
    return data, str(builder.hash or "")


def _rows(data: Any, path: str, wanted: list[str]) -> Iterator[Row]:
    names = {column: _class_names(data.features[column]) for column in wanted}
    number = 0
    for batch in data.select_columns(wanted).iter(ROWS_AT_ONCE):
        for values in zip(*(batch[column] for column in wanted), strict=True):
            number += 1
            row = {}
            for column, value in zip(wanted, values, strict=True):
                where = f"{path}, row {number:,}"
                row[column] = _named(value, names[column], where)
            yield Row(number, row)


def _class_names(feature: Any) -> Sequence[str] | None:
    """Return the class names of a column, or of the items of its lists; None without names."""
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, list):
        inner = inner[0]
    names: Sequence[str] | None = getattr(inner, "names", None)
    return names


def _named(value: Any, names: Sequence[str] | None, where: str) -> Any:
    """Return the names of class numbers."""
    if names is None or value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_named(item, names, where) for item in value]
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise UserError(
            f"{where}: class {value} has no name, because the data set names {len(names)} classes. "
            "Give another revision, or local files."
        )
    return names[value]
