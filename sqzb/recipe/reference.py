"""The reference of a recipe's keys, made from the schema: type, limits, default and description."""

import textwrap
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sqzb.recipe.commands import COMMANDS, command_line
from sqzb.recipe.schema import FinetuneRecipe
from sqzb.recipe.strict_yaml import dump
from sqzb.recipe.sweeps import PartialRecipe

WIDTH = 80
_NOUNS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_LIMITS = {
    "ge": "{} or more",
    "gt": "over {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "not empty",
}


def reference(command: str) -> Iterator[str]:
    """Yield the lines that describe every key of the command's recipes, at most 80 columns wide."""
    yield f"The keys of recipes for sqzb {command}, with defaults. Override keys by"
    yield f"  {command_line(command, 'RECIPE')} KEY=VALUE ..."
    for key, field in keys(COMMANDS[command]):
        default = ""
        if section_in(field.annotation) is None:
            default = f"={_value_text(field.get_default())}"
        head = f"{key}{default}  ({_type_text(field.annotation, field.metadata)})"
        yield ""
        yield from _wrapped(head, "", " " * 8)
        yield from _wrapped(field.description or "", " " * 4, " " * 4)


def keys(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key with dots and its field; NAME stands for a name of the user's choice.

    The parts of a sweep repeat the keys of a run: only keys of their own are yielded.
    """
    for name, field in kind.model_fields.items():
        if issubclass(kind, PartialRecipe) and name in FinetuneRecipe.model_fields:
            continue
        yield f"{prefix}{name}", field
        section = section_in(field.annotation)
        if section is not None:
            inside = "NAME." if get_origin(field.annotation) is dict else ""
            yield from keys(section, f"{prefix}{name}.{inside}")


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section in `Section | None`, `dict[str, Section]` and the like; else None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (section_in(argument) for argument in get_args(annotation))
    return next((section for section in inner if section is not None), None)


def _wrapped(text: str, first: str, following: str) -> list[str]:
    """Return the lines of a text, with the indent of the first and that of the following ones."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False
    )


def _type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type and its limits in words: "whole number, 1 or more, or null"."""
    limits = "".join(f", {limit}" for rule in metadata for limit in _limit_texts(rule))
    return f"{_noun(annotation)}{limits}{', or null' if NoneType in get_args(annotation) else ''}"


def _noun(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if section_in(annotation) is not None:
        return "section by name" if origin is dict else "section"
    if origin is Annotated:
        return _type_text(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return ", or ".join(_noun(argument) for argument in arguments if argument is not NoneType)
    if origin is Literal:
        *others, last = map(str, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is dict:
        return f"mapping from {_noun(arguments[0])} to {_noun(arguments[1])}"
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(arguments)} {_noun(arguments[0])}s"
    if origin in (list, tuple):
        plural = "" if get_origin(arguments[0]) is Literal else "s"
        return f"list of {_noun(arguments[0])}{plural}"
    return _NOUNS.get(annotation, "value")


def _limit_texts(rule: Any) -> Iterator[str]:
    """Yield the limits that a field's rule sets; inside of Annotated, a field holds the rules."""
    for inner in rule.metadata if isinstance(rule, FieldInfo) else [rule]:
        for name, text in _LIMITS.items():
            limit = getattr(inner, name, None)
            if limit is not None:
                yield text.format("2**64" if limit == 2**64 else limit)


def _value_text(value: Any) -> str:
    """Return a value as it is written behind `KEY=`, on one line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value_text, value))}]"
    return dump([value], in_line=True).strip()[1:-1]
