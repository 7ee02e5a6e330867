"""The facts about own data that a run stores in data.json: columns, labels and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqzb.data.dataset import Kind, Number
from sqzb.data.labels import KINDS, kind_name


class KnownFile(NamedTuple):
    """A file that was read.

    path    as it was given or found
    sha256  of the file; of a Hub data set its commit
    rows    examples in it
    """

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Known:
    """The facts about the data that training has found, so that later commands need not find them.

    name: of the data set.
    text: columns of the texts.
    label: column of the labels.
    recognised: which of "text", "label" and "kind" were not given.
    kind: with the names of the labels, or their range, mean and spread.
    files: by split.
    """

    name: str
    text: tuple[str, ...]
    label: str
    recognised: tuple[str, ...]
    kind: Kind
    files: Mapping[str, tuple[KnownFile, ...]] = field(default_factory=dict)

    def for_other_files(self) -> "Known":
        """Return the same without the files, for files that the run has not seen."""
        return replace(self, files={})

    def to_json(self) -> dict[str, Any]:
        """Return the content of data.json."""
        kind: dict[str, Any] = {"name": kind_name(self.kind)}
        if isinstance(self.kind, Number):
            number = self.kind
            kind |= {"low": number.low, "high": number.high, "mean": number.mean, "std": number.std}
        else:
            kind["names"] = list(self.kind.names)
        files = {}
        for split, known in self.files.items():
            files[split] = [file._asdict() for file in known]
        return {
            "name": self.name,
            "text": list(self.text),
            "label": self.label,
            "recognised": list(self.recognised),
            "kind": kind,
            "files": files,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Known":
        """Return what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: The content was written by something else.
        """
        kind = dict(content["kind"])
        type_ = KINDS[kind.pop("name")]
        if type_ is not Number:
            kind["names"] = tuple(kind["names"])
        files = {}
        for split, known in dict(content["files"]).items():
            files[split] = tuple(KnownFile(**file) for file in known)
        return Known(
            name=content["name"],
            text=tuple(content["text"]),
            label=content["label"],
            recognised=tuple(content["recognised"]),
            kind=type_(**kind),
            files=files,
        )
