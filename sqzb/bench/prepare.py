"""The files that a cell opens: a saved model, or an export that is made for the race."""

from pathlib import Path

from sqzb.bench.cells import GENERAL
from sqzb.bench.contestants import Contestant
from sqzb.bench.general import write_general
from sqzb.bench.runtimes import format_of
from sqzb.export.folder import Precision
from sqzb.export.job import Wanted, write_unchecked


def prepare(contestant: Contestant, runtime: str, precision: Precision, folder: Path) -> Path:
    """Return the folder that the cell opens: `folder`, or that of the contestant itself.

    folder: an empty folder for an export.

    Raises:
        UserError: the model cannot be exported. The general exporters raise all kinds of errors.
    """
    format = format_of(runtime)
    if format is None or contestant.record is not None:
        return contestant.folder
    if contestant.form == GENERAL:
        write_general(contestant.folder, contestant.head, format, precision, folder)
    else:
        source = str(contestant.folder)
        write_unchecked(Wanted(source, format, precision, contestant.head, folder))
    return folder
