"""The keys of recipes for labelled data of the user's own."""

from typing import Literal

from pydantic import Field

from sqzb.errors import Problem
from sqzb.recipe.values import Columns, Files, Section, changed_keys


class OwnData(Section):
    """Labelled data of the user's own, in place of a GLUE task.

    A file is CSV, TSV, JSONL, JSON, parquet or CoNLL, also compressed. A folder or a glob stands
    for its files, and hub:OWNER/NAME[@REVISION][:CONFIG[:SPLIT]] for a data set on the Hub.
    """

    train: Files = Field((), description="files, folders, globs or hub:OWNER/NAME to train on")
    validation: Files = Field(
        (), description="the same to measure on; empty: a share of the training examples"
    )
    test: Files = Field(
        (), description="the same to measure on at the end, or without labels for predictions"
    )
    text: Columns = Field(
        (), description="column of the text, or two of a pair; empty: recognised by their names"
    )
    label: str | None = Field(
        None, min_length=1, description="column of the label; null: recognised by its name"
    )
    kind: Literal["classes", "number", "labels", "tokens"] | None = Field(
        None,
        description="one of several classes; a number; several labels; a label for each word; "
        "null: recognised from the labels",
    )
    separator: str = Field(
        ",", min_length=1, description="text between several labels of an example in one column"
    )
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of the examples to measure on, without validation files"
    )
    split: str = Field("train", min_length=1, description="split of a data set on the Hub")
    revision: str | None = Field(
        None, min_length=1, description="commit of a data set on the Hub; null: the newest"
    )

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); empty if none are."""
        problems: list[Problem] = []
        if len(self.text) > 2:
            problems.append(("text", f"is {len(self.text)} columns; an example has 1 or 2 texts"))
        problems += [
            (key, "holds an empty text")
            for key in ("train", "validation", "test", "text")
            if "" in getattr(self, key)
        ]
        if self.validation and self.holdout != OwnData.model_fields["holdout"].default:
            problems.append(("holdout", "has no effect beside data.validation"))
        on_hub = [name for name in (*self.train, *self.validation, *self.test) if "hub:" in name]
        if self.revision and any("@" in name for name in on_hub):
            problems.append(("revision", "is given with hub:owner/name@revision already"))
        if not self.train:
            problems += [
                (key, "has no effect without data.train (--train)")
                for key, value in self
                if value != OwnData.model_fields[key].default
            ]
        return problems

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect on the kind of files and labels, as (key, reason)."""
        unread: list[Problem] = []
        files = (*self.train, *self.validation, *self.test)
        if files and not any(file.startswith("hub:") for file in files):
            reason = "has no effect on files: it is for hub:OWNER/NAME"
            of_hub = {"split", "revision"}
            unread += [(key, reason) for key in changed_keys(self) if key in of_hub]
        if self.kind not in (None, "labels") and "separator" in changed_keys(self):
            unread.append(("separator", f"has no effect with data.kind={self.kind}"))
        return unread
