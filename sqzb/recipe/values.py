"""The parts that recipes are made of: sections, and values of types that YAML does not have."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from sqzb.errors import Problem


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are refused, nothing is converted but whole numbers to real."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def problems(self) -> list[Problem]:
        """Values that are right alone and impossible together: (key, what is wrong); empty if there is none."""
        return []


def _size_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("size_or_auto", "Input should be a whole number, 1 or more, or auto")


# One error for both kinds, where pydantic has one for each kind of a union.
MicroBatchSize = Annotated[
    Annotated[int, Field(ge=1)] | Literal["auto"], PlainValidator(_size_or_auto)
]


def _switch(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise PydanticCustomError("switch", "Input should be true, false or auto")


Switch = Annotated[bool | Literal["auto"], PlainValidator(_switch)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with dots: {"a": {"b": 1}} is {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return found
