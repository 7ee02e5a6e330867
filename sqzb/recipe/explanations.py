"""Explanations of a recipe's errors, by key."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from sqzb.recipe.schema import REMOVED


def explain(kind: type[BaseModel], detail: Mapping[str, Any]) -> str:
    """Return one line on an error of pydantic's: the key, what is wrong with its value, the nearest key."""
    location = [part for part in detail["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in location)
    if detail["type"] == "missing":
        return f"{key}: missing"
    if detail["type"] != "extra_forbidden":
        return f"{key}: {detail['msg'].removeprefix('Input ')}, not {detail['input']!r}"
    if ".".join(str(part) for part in location[-2:]) in REMOVED:
        return f"{key}: no longer supported, since it made no student better; leave it out"
    names = _names_at(kind, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    known = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(names)}"
    return f"{key}: unknown key; {known}"


def _names_at(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the section at `location`, found through the annotations."""
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is not None:
            kind = _section_in(field.annotation) or kind
    return list(kind.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)
