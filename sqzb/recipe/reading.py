"""Recipes read from strict YAML files plus `key=value` overrides, and written out."""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from sqzb.errors import RecipeError
from sqzb.model.config import SqueezeBertConfig
from sqzb.recipe import strict_yaml
from sqzb.recipe.commands import COMMANDS, NOUNS, command_line, command_of
from sqzb.recipe.explanations import explain, same_key
from sqzb.recipe.shipped import find, names
from sqzb.recipe.strict_yaml import dump, parse
from sqzb.recipe.sweeps import SweepRecipe
from sqzb.recipe.values import Section

Recipe = TypeVar("Recipe", bound=Section)
# KEY, = and VALUE as arguments of their own, or = at the end or the beginning of one; \0 stands
# between arguments.
_SPACED = re.compile(r"(?:^|\0)(?P<key>[^\0=]+)(?:\0=\0?|=\0)(?P<value>[^\0=]+)(?=\0|$)")


def load_recipe(
    kind: type[Recipe], path: Path | None, overrides: Sequence[str] = (), **given: Any
) -> Recipe:
    """Read a recipe, lay the `KEY=VALUE` overrides over it and then what was `given` (unless None), and check it.

    path: a file, or the name of a recipe that comes with sqzb; None: all defaults. Keys reach
    inside with dots: `optimizer.lr=1e-3`. What is given in these two ways for all runs of a sweep
    also stands over what the file has in `sweep`, `tasks` and `stages`, but not over what a stage
    that teaches others says of itself.

    Raises:
        RecipeError: there is no such recipe, or it cannot be used; every problem is listed.
    """
    values = _read(kind, path) if path is not None else {}
    if kind is SweepRecipe:
        named = {text.partition("=")[0] for text in overrides} | {
            key for key in given if given[key] is not None
        }
        values = _without(values, named)
    overrides, problems = _without_spaced(overrides)
    problems += [problem for text in overrides for problem in _override(values, text)]
    values |= {key: value for key, value in given.items() if value is not None}
    recipe, found = _validate(kind, values)
    problems += found
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RecipeError(
            f"The recipe {path if path is not None else 'given by KEY=VALUE'} cannot be "
            f"used:{listed}"
        )
    return recipe


def dump_recipe(recipe: Section) -> str:
    """The recipe as YAML, every default written out."""
    return dump(recipe.model_dump())


def _read(kind: type[Section], recipe: Path) -> dict[str, Any]:
    """Return the values of a recipe's file, which must not be a recipe of another command."""
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
            f"The recipe {recipe} is no YAML: {strict_yaml.explain(error, text)}"
        ) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(
            f"The recipe {recipe} holds no keys. A recipe is a list of `key: value` lines."
        )
    command = _other_command(kind, values.keys())
    if command is not None:
        raise RecipeError(f"{recipe} is {NOUNS[command]}: use {command_line(command, str(recipe))}")
    return values


def _other_command(kind: type[Section], given: Set[str]) -> str | None:
    """Return the command whose recipe this is, from its top-level keys; None where it may be one of `kind`.

    None of the keys is then `kind`'s alone. A single key that only the other command has may as
    well be a slip, such as `lr` for `optimizer.lr`.
    """
    command = command_of(given)
    other = COMMANDS[command]
    foreign = given & other.model_fields.keys() - kind.model_fields.keys()
    own = given & kind.model_fields.keys() - other.model_fields.keys()
    if own or not foreign or (len(foreign) == 1 and same_key(kind, *foreign)):
        return None
    return command


def _without(values: dict[str, Any], named: Set[str]) -> dict[str, Any]:
    """A sweep's values, of whatever form, less the `named` keys in its grid and in the settings of tasks and stages,
    but of stages that others name as their teacher."""
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
    """A mapping less the named keys, which reach inside with dots; anything else as it is."""
    if not isinstance(part, dict):
        return part
    inside = {
        key: {name.removeprefix(f"{key}.") for name in named if name.startswith(f"{key}.")}
        for key in part
    }
    return {key: _less(value, inside[key]) for key, value in part.items() if key not in named}


def _without_spaced(overrides: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """Return the overrides less those with spaces around `=`, and a problem for each of these.

    The shell cuts `KEY = VALUE` into three arguments, `KEY= VALUE` and `KEY =VALUE` into two.
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


def _override(values: dict[str, Any], text: str) -> list[str]:
    """Set one KEY=VALUE in `values`; the problem, if there is one."""
    key, equals, value = text.partition("=")
    if not equals and (text in names() or Path(text).suffix in (".yaml", ".yml")):
        return [f"{text}: is a recipe, and no KEY=VALUE: give it as --recipe {text}"]
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
        inner[last] = parse(value)
    except yaml.YAMLError:
        return [f"{key}: {value!r} is no YAML value; put it into quotes"]
    return []


def _validate(kind: type[Recipe], values: dict[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe and its problems.

    Every key has a default, so where single values are wrong the rest is still checked with these
    left out; what is then said of a key that was left out would be about its default, and is
    dropped.
    """
    try:
        recipe = kind.model_validate(values)
        return recipe, list(_combined(recipe))
    except ValidationError as error:
        details = error.errors()
    problems = explain(kind, details)
    removed = {_remove(values, detail["loc"]) for detail in details}
    try:
        recipe = kind.model_validate(values)
    except (
        ValidationError
    ):  # a key that is no text, such as null, cannot be found again by its place
        return kind(), problems
    return recipe, problems + list(_combined(recipe, removed))


def _combined(
    section: Section | SqueezeBertConfig, removed: Set[str] = frozenset(), prefix: str = ""
) -> Iterator[str]:
    """What is impossible together, less what is said of a key in `removed`."""
    for field, problem in section.problems():
        if not any(
            f"{prefix}{word}" in removed for word in re.findall(r"\w+", f"{field} {problem}")
        ):
            yield f"{prefix}{field}: {problem}"
    for name in type(section).model_fields:
        inner = getattr(section, name)
        sections = inner if isinstance(inner, dict) else {None: inner}
        for key, value in sections.items():
            if isinstance(value, Section | SqueezeBertConfig):
                inside = f"{prefix}{name}." if key is None else f"{prefix}{name}.{key}."
                yield from _combined(value, removed, inside)


def _remove(values: dict[str, Any], location: Sequence[int | str]) -> str:
    """Take out the innermost key on the way to `location`, whole where it holds a list; its name with dots."""
    depth, inner = 0, cast(dict[int | str, Any], values)
    while depth < len(location) - 1 and isinstance(inner.get(location[depth]), dict):
        inner = inner[location[depth]]
        depth += 1
    if location:  # which is empty for a key that is no character, "\\ud800"
        inner.pop(location[depth], None)
    return ".".join(str(part) for part in location[: depth + 1])
