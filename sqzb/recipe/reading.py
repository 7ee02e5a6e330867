"""Recipes read from strict YAML files plus `key=value` overrides, and written out."""

import re
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import ValidationError

from sqzb.errors import RecipeError
from sqzb.model.config import SqueezeBertConfig
from sqzb.recipe import strict_yaml
from sqzb.recipe.commands import COMMANDS, NOUNS, command_line, command_of
from sqzb.recipe.explanations import annotation_of, explain, same_key
from sqzb.recipe.shipped import find, names
from sqzb.recipe.strict_yaml import dump, parse, parse_value
from sqzb.recipe.sweeps import SweepRecipe
from sqzb.recipe.values import Section

Recipe = TypeVar("Recipe", bound=Section)
# KEY, = and VALUE as separate arguments, or = at the end or the beginning of one; \0 separates
# arguments.
_SPACED = re.compile(r"(?:^|\0)(?P<key>[^\0=]+)(?:\0=\0?|=\0)(?P<value>[^\0=]+)(?=\0|$)")


def load_recipe(
    kind: type[Recipe],
    path: Path | None,
    overrides: Sequence[str] = (),
    stored: bool = False,
    **given: Any,
) -> Recipe:
    """Read and validate a recipe, with `KEY=VALUE` overrides and `given` values on top of its file.

    path: a file, or the name of a recipe that comes with sqzb; None: all defaults.
    overrides: keys reach into sections by dots, as in `optimizer.lr=1e-3`.
    stored: whether the file is that of a run or corpus, which may have keys without effect.
    given: values by key; None leaves a key as it is.

    In a sweep, a key from `overrides` or `given` also replaces the file's values in `sweep`,
    `tasks` and `stages`, except in a stage that is the teacher of others.

    Raises:
        RecipeError: there is no such recipe, or it cannot be used; the message lists every problem.
    """
    values = _read(kind, path) if path is not None else {}
    if kind is SweepRecipe:
        named = {text.partition("=")[0] for text in overrides}
        named |= {key for key, value in given.items() if value is not None}
        values = _without(values, named)
    overrides, problems = _without_spaced(overrides)
    for text in overrides:
        problems += _override(kind, values, text)
    values |= {key: value for key, value in given.items() if value is not None}
    recipe, invalid = _validate(kind, values, stored)
    problems += invalid
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RecipeError(
            f"The recipe {path if path is not None else 'given by KEY=VALUE'} cannot be "
            f"used:{listed}"
        )
    return recipe


def dump_recipe(recipe: Section) -> str:
    """Return the recipe as YAML, with every default written out."""
    return dump(recipe.model_dump())


def command_for(recipe: Path) -> str:
    """Return the command that the recipe's keys belong to.

    Raises:
        RecipeError: the file cannot be read, or is no recipe.
    """
    return command_of(_values(recipe))


def _read(kind: type[Section], recipe: Path) -> dict[str, Any]:
    """Return the values of a recipe's file, which must not be a recipe of another command."""
    values = _values(recipe)
    command = _other_command(kind, values.keys())
    if command is not None:
        raise RecipeError(f"{recipe} is {NOUNS[command]}: use {command_line(command, str(recipe))}")
    return values


def _values(recipe: Path) -> dict[str, Any]:
    """Return the values of a recipe's file, of whatever command."""
    path = find(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The recipe {recipe} cannot be read ({error}). Give a YAML file in UTF-8."
        ) from error
    try:
        values = parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"The recipe {recipe} is not valid YAML: {strict_yaml.explain(error, text)}"
        ) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(
            f"The recipe {recipe} holds no keys. A recipe is a list of `key: value` lines."
        )
    return values


def _other_command(kind: type[Section], given: Set[str]) -> str | None:
    """Return the command whose recipe has these top-level keys; None where `kind` may be meant.

    Another command is reported only if none of the keys is `kind`'s alone. A single key that only
    the other command has may as well be a slip, such as `lr` for `optimizer.lr`.
    """
    command = command_of(given)
    other = COMMANDS[command]
    foreign = given & other.model_fields.keys() - kind.model_fields.keys()
    own = given & kind.model_fields.keys() - other.model_fields.keys()
    if own or not foreign or (len(foreign) == 1 and same_key(kind, *foreign)):
        return None
    return command


def _without(values: dict[str, Any], named: Set[str]) -> dict[str, Any]:
    """Return a sweep's values without the `named` keys in its grid and in its tasks and stages.

    Stages that others name as their teacher keep theirs. The values are not validated yet.
    """
    changed = dict(values)
    if "sweep" in values:
        changed["sweep"] = _less(values["sweep"], named)
    for name in ("tasks", "stages"):
        if isinstance(values.get(name), dict):
            parts = values[name]
            teachers = [part.get("teacher") for part in parts.values() if isinstance(part, dict)]
            changed[name] = {
                key: part if key in teachers else _less(part, named) for key, part in parts.items()
            }
    return changed


def _less(part: Any, named: Set[str]) -> Any:
    """Return a mapping without the named (dotted) keys; return any other value as it is."""
    if not isinstance(part, dict):
        return part
    kept = {}
    for key, value in part.items():
        if key not in named:
            inside = {name.removeprefix(f"{key}.") for name in named if name.startswith(f"{key}.")}
            kept[key] = _less(value, inside)
    return kept


def _without_spaced(overrides: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """Return the overrides without those with spaces around `=`, and a problem for each of these.

    The shell splits `KEY = VALUE` into three arguments, `KEY= VALUE` and `KEY =VALUE` into two.
    """
    joined = "\0".join(overrides)
    spaced = list(_SPACED.finditer(joined))
    if not spaced:
        return overrides, []
    problems = []
    for match in spaced:
        as_given = match[0].strip("\0").replace("\0", " ")
        problems.append(f"{as_given}: leave out the spaces: {match['key']}={match['value']}")
    whole = _SPACED.sub("", joined).split("\0")
    return [override for override in whole if override], problems


def _override(kind: type[Section], values: dict[str, Any], text: str) -> list[str]:
    """Set one KEY=VALUE in `values`, and return the problem if there is one."""
    key, equals, value = text.partition("=")
    if not equals and (text in names() or Path(text).suffix in (".yaml", ".yml")):
        return [f"{text}: is a recipe, not a KEY=VALUE: give it as --recipe {text}"]
    if not equals or not key:
        return [f"{text}: an override is KEY=VALUE, such as seed=1"]
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        inside = {} if inner.get(parent) is None else inner[parent]
        if not isinstance(inside, dict):
            return [f"{key}: {parent} has no keys inside"]
        inner[parent] = dict(inside)  # a copy: a YAML alias may put the same mapping elsewhere too
        inner = inner[parent]
    try:
        inner[last] = _value(annotation_of(kind, key), value)
    except yaml.YAMLError:
        return [f"{key}: {value!r} is not a valid YAML value; put it into quotes"]
    return []


def _value(annotation: Any, text: str) -> Any:
    """Return the value of an override.

    A key that takes text takes it as it is. Only `null`, a text in quotes, and a list or a mapping
    in brackets are YAML, as all values of other keys are.

    annotation: the key's type.

    Raises:
        yaml.YAMLError: the text is not YAML, or a comment is behind its value.
    """
    if not _takes_text(annotation):
        return parse_value(text)
    is_marked = len(text) > 1 and text[0] + text[-1] in ("''", '""', "[]", "{}")
    if is_marked or text in ("", "null"):
        with suppress(yaml.YAMLError):
            return parse_value(text)
    return text


def _takes_text(annotation: Any) -> bool:
    """Return whether a key of this type takes any text, or a list of texts."""
    if annotation is str:
        return True
    # A mapping's first type is that of its keys; a Literal's arguments are no types.
    inner = get_args(annotation)[1:] if get_origin(annotation) is dict else get_args(annotation)
    return get_origin(annotation) is not Literal and any(map(_takes_text, inner))


def _validate(kind: type[Recipe], values: dict[str, Any], stored: bool) -> tuple[Recipe, list[str]]:
    """Return the recipe and its problems.

    Every key has a default. Where single values are wrong, the rest is still checked without them,
    and problems that mention a removed key are dropped, because they would be about its default.
    """
    try:
        recipe = kind.model_validate(values)
        return recipe, list(_combined(recipe, stored))
    except ValidationError as error:
        details = error.errors()
    problems = explain(kind, details)
    removed = {_remove(values, detail["loc"]) for detail in details}
    try:
        recipe = kind.model_validate(values)
    except ValidationError:
        # A key that is not text, such as null, cannot be removed by its location.
        return kind(), problems
    return recipe, problems + list(_combined(recipe, stored, removed))


def _combined(
    section: Section | SqueezeBertConfig,
    stored: bool,
    removed: Set[str] = frozenset(),
    prefix: str = "",
) -> Iterator[str]:
    """Yield values that are impossible together, but none that mention a key in `removed`.

    Of a recipe that is not stored, also yield the keys without effect.
    """
    problems = section.problems()
    if isinstance(section, Section) and not stored:
        problems = problems + section.unread_keys()
    for field, problem in problems:
        mentioned = {f"{prefix}{word}" for word in re.findall(r"\w+", f"{field} {problem}")}
        if not mentioned & removed:
            yield f"{prefix}{field}: {problem}"
    for name in type(section).model_fields:
        inner = getattr(section, name)
        sections = inner if isinstance(inner, dict) else {None: inner}
        for key, value in sections.items():
            if isinstance(value, Section | SqueezeBertConfig):
                inside = f"{prefix}{name}." if key is None else f"{prefix}{name}.{key}."
                yield from _combined(value, stored, removed, inside)


def _remove(values: dict[str, Any], location: Sequence[int | str]) -> str:
    """Remove the innermost key on the way to `location`, and return its dotted name.

    A list is removed as a whole.
    """
    depth, inner = 0, cast(dict[int | str, Any], values)
    while depth < len(location) - 1 and isinstance(inner.get(location[depth]), dict):
        inner = inner[location[depth]]
        depth += 1
    if location:  # empty for a key that is not a valid character, "\\ud800"
        inner.pop(location[depth], None)
    return ".".join(str(part) for part in location[: depth + 1])
