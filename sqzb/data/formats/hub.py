"""Data sets of the Hugging Face Hub: hub:owner/name[@revision][:config[:split]]."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqzb.console import counted
from sqzb.data.formats.common import Row, Table
from sqzb.errors import UserError
from sqzb.hub import COMMIT, asked_once, hub_id, note, offline

PREFIX = "hub:"
FORM = f"{PREFIX}owner/name, {PREFIX}owner/name@revision, {PREFIX}owner/name:config or "
FORM += f"{PREFIX}owner/name:config:split"
SPLIT = ", split "  # in a table's path, between the name and its split
ROWS_AT_ONCE = 1024


def open_table(given: str, split: str, revision: str | None) -> Table:
    """Open a split of a Hub data set, or of its copy in the local cache. Its scripts never run.

    given: hub:owner/name[@revision][:config[:split]]; the config may be empty.
    split, revision: where `given` names none.

    Values of columns with class names are these names; -1, the Hub's mark of a label that is
    withheld, is None.

    Raises:
        UserError: The name is no Hub id, there is no such data set, config, split or revision, or
            the Hub cannot be reached.
    """
    named, _, rest = given.removeprefix(PREFIX).partition(":")
    config, _, own_split = rest.partition(":")
    asked = hub_id(named)
    if asked is None:
        raise UserError(f"{given} is no data set of the Hub. Give {FORM}.")
    split = own_split or split
    # A run that goes on reads the commit that it has begun with.
    data, commit = _open(given, asked.name, config or None, split, revision or asked.revision)
    path = given if own_split else f"{given}{SPLIT}{split}"
    return Table(
        path,
        tuple(data.column_names),
        "row",
        lambda wanted: _rows(data, path, list(wanted)),
        commit,
    )


def without_split(path: str) -> str:
    """Return the name of a data set as it was given, from the path of its table."""
    return path.partition(SPLIT)[0]


def _open(
    given: str, name: str, config: str | None, split: str, revision: str | None
) -> tuple[Any, str]:
    """Return the split and the data set's commit."""
    import datasets

    try:
        with asked_once(name):
            builder = datasets.load_dataset_builder(name, config, revision=revision)
            builder.download_and_prepare()
            data = builder.as_dataset(split=split)
    except Exception as error:  # datasets lets through whatever its network clients raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"Split {split!r} of {given} could not be had from the Hub, nor from its local cache "
            f"({reason}){offline()}. Check the name, and revision, config and split in "
            f"{PREFIX}owner/name@revision:config:split; connect to the network once (with "
            "HF_HUB_OFFLINE unset); for a private data set, run `hf auth login`."
        ) from error
    if COMMIT.fullmatch(revision or "") and builder.hash != revision:
        raise UserError(
            f"{given} at commit {revision} could not be had from the Hub, and the newest copy in "
            f"the local cache is of commit {builder.hash}. Connect to the network."
        )
    note(name, str(builder.hash or ""))
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
            f"{where}: class {value} has no name, because the data set names "
            f"{counted(len(names), 'class', 'classes')}. Give another revision, or local files."
        )
    return names[value]
