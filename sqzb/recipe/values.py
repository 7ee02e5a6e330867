"""The parts of recipes: sections, and values of types that YAML does not have."""

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from sqzb.errors import Problem


class Section(BaseModel):
    """A part of a recipe.

    Unknown keys and wrong types are errors, and only integers are converted, to floats.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); none by default."""
        return []

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect beside the others, as (key, reason).

        Only recipes that a user gives are checked: a run or corpus of an older version may have
        such keys, and is still opened.
        """
        return []


def changed_keys(section: BaseModel, *without: str) -> list[str]:
    """Return the keys whose values are not the defaults, except those in `without`."""
    keys = type(section).model_fields
    return [
        key
        for key, field in keys.items()
        if key not in without and getattr(section, key) != field.get_default()
    ]


def _or_auto(noun: str, kind: type, least: float) -> PlainValidator:
    """Return a validator of numbers from `least` on and of `auto`.

    It has one error for both, where pydantic has one for each type of a union.
    """

    def check(value: Any) -> Any:
        if value == "auto":
            return value
        whole = type(value) is int
        if (whole or (type(value) is float and kind is float)) and least <= value < math.inf:
            return kind(value)
        raise PydanticCustomError("or_auto", f"Input should be a {noun}, or auto")

    return PlainValidator(check)


def _whole_or_auto(least: int) -> PlainValidator:
    return _or_auto(f"whole number, {least} or more", int, least)


Count = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], _whole_or_auto(1)]
Length = Annotated[Annotated[int, Field(ge=8)] | Literal["auto"], _whole_or_auto(8)]
Rate = Annotated[
    Annotated[float, Field(gt=0)] | Literal["auto"],
    _or_auto("number over 0", float, math.nextafter(0, 1)),
]


def _switch(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise PydanticCustomError("switch", "Input should be true, false or auto")


Switch = Annotated[bool | Literal["auto"], PlainValidator(_switch)]


def number(value: float | Literal["auto"]) -> float:
    """Return a value that is no longer "auto"."""
    assert value != "auto"
    return value


def at_home(value: Any) -> Any:
    """Return a path, or each path of a list, with the home folder in place of `~`."""
    if isinstance(value, list | tuple):
        return tuple(map(at_home, value))
    return os.path.expanduser(value) if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return at_home((value,) if isinstance(value, str) else value)


def _columns(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


# A local path, or what may be one, such as a model's; Hub ids never begin with ~.
LocalPath = Annotated[str, BeforeValidator(at_home)]
Files = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_listed)]
Columns = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_columns)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values by dotted keys: {"a": {"b": 1}} becomes {"a.b": 1}."""
    by_key: dict[str, Any] = {}
    for key, value in values.items():
        by_key |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return by_key
