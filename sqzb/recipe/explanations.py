"""Explanations of a recipe's errors: the key, what is wrong, and the key that was likely meant."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from sqzb.recipe.reference import keys, section_in
from sqzb.recipe.schema import REMOVED
from sqzb.recipe.strict_yaml import parse
from sqzb.recipe.values import flat

Location = tuple[int | str, ...]  # the keys on the way to a value; numbers in lists

# Names that other tools, or other commands, have for a key.
ALIASES: dict[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "peak_lr": ("lr",),
    "batch": ("global_batch",),
    "batch_size": ("batch", "global_batch"),
    "train_batch_size": ("batch", "global_batch"),
    "per_device_train_batch_size": ("batch", "micro_batch"),
    "global_batch": ("batch",),
    "global_batch_size": ("batch", "global_batch"),
    "micro_batch_size": ("micro_batch",),
    "steps": ("epochs",),
    "max_steps": ("steps", "epochs"),
    "epochs": ("steps",),
    "num_epochs": ("epochs", "steps"),
    "num_train_epochs": ("epochs", "steps"),
    "max_length": ("sequence_length", "sequence_lengths"),
    "max_seq_length": ("max_length", "sequence_length", "sequence_lengths"),
    "sequence_length": ("max_length", "sequence_lengths"),
    "warmup_ratio": ("warmup",),
    "warmup_steps": ("warmup",),
    "max_grad_norm": ("clip_norm",),
    "mlm_probability": ("masking_rate",),
    "eval_steps": ("evaluate_every",),
    "save_steps": ("checkpoint_every",),
    "logging_steps": ("log_every",),
    "output_dir": ("output",),
    "bf16": ("precision",),
    "fp16": ("precision",),
    "model_name_or_path": ("model", "start_from"),
}


def explain(kind: type[BaseModel], details: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line for each of pydantic's errors on a recipe of this kind."""
    lines = []
    listed: set[Location] = set()
    for detail in details:
        location = tuple(part for part in detail["loc"] if part != "[key]")
        key = ".".join(str(part) for part in location)
        if detail["type"] == "missing":
            lines.append(f"{key}: missing")
        elif detail["type"] != "extra_forbidden":
            lines.append(f"{key}: {_wrong_value(detail)}")
        elif ".".join(str(part) for part in location[-2:]) in REMOVED:
            reason = "because it improved no student"
            lines.append(f"{key}: no longer supported, {reason}; leave it out")
        else:
            lines.append(_unknown_key(kind, location, detail["input"], listed))
    return lines


def same_key(kind: type[BaseModel], name: str) -> list[str]:
    """Return the dotted keys that `name` may stand for: equal in the last part, or by an alias."""
    last = name.rpartition(".")[2]
    values = [key for key, field in keys(kind) if section_in(field.annotation) is None]
    for wanted in ((last,), ALIASES.get(last, ())):
        matching = [key for key in values if key.rpartition(".")[2] in wanted]
        if matching:
            return matching
    return []


def annotation_of(kind: type[BaseModel], key: str) -> Any:
    """Return the type of a dotted key; None for an unknown key."""
    annotation: Any = kind
    for part in key.split("."):
        annotation = _inside(annotation, part)
    return annotation


def _inside(annotation: Any, part: str) -> Any:
    """Return the type of a key of a section, or that of a mapping's values; None if unknown."""
    for inner in (annotation, *get_args(annotation)):
        if get_origin(inner) is dict:
            return get_args(inner)[1]
    section = section_in(annotation)
    field = None if section is None else section.model_fields.get(part)
    return None if field is None else field.annotation


def _unknown_key(
    kind: type[BaseModel], location: Location, value: Any, listed: set[Location]
) -> str:
    """Return one line on an unknown key.

    listed: sections whose keys an earlier line lists already, because they are listed once;
    updated.
    """
    key, section = ".".join(str(part) for part in location), location[:-1]
    meant = _meant(kind, location, value)
    if meant:
        whole_key = ".".join([key, *_only_inner(value)])
        return f"{whole_key}: unknown key; did you mean {' or '.join(meant)}?"
    if section in listed:
        return f"{key}: unknown key"
    listed.add(section)
    return f"{key}: unknown key; the keys here are {', '.join(_names_at(kind, section))}"


def _meant(kind: type[BaseModel], location: Location, value: Any) -> list[str]:
    """Return the keys that an unknown key may stand for: the certain ones, or the nearest here."""
    name, names = str(location[-1]), _names_at(kind, location[:-1])
    here = [alias for alias in ALIASES.get(name, ()) if alias in names]
    if here:
        return here
    if len(location) == 1 or location[0] not in kind.model_fields:
        inner = list(flat(value)) if isinstance(value, dict) else [name]
        elsewhere = [key for part in inner for key in same_key(kind, str(part))]
        if elsewhere:
            return list(dict.fromkeys(elsewhere))
    return difflib.get_close_matches(name, names, n=1)


def _only_inner(value: Any) -> Iterator[str]:
    """Yield the rest of a dotted key, where the value of an unknown section is a single key."""
    while isinstance(value, dict) and len(value) == 1:
        (part, value), *_ = value.items()
        yield str(part)


def _wrong_value(detail: Mapping[str, Any]) -> str:
    value, problem = detail["input"], detail["msg"].removeprefix("Input ")
    if detail["type"] == "model_type":
        problem = "should be a section, with keys inside"
    advice = ""
    if detail["type"] in ("list_type", "tuple_type") and isinstance(value, str | int | float):
        advice = f": write [{value}]"
    elif detail["type"] in ("int_type", "float_type", "bool_type", "or_auto") and _is_quoted(value):
        advice = f": write {value}, without quotes"
    return f"{problem}, not {value!r}{advice}"


def _is_quoted(value: Any) -> bool:
    """Whether the value is a text that would be a number or the like without its quotes."""
    try:
        return isinstance(value, str) and parse(value) != value
    except yaml.YAMLError:
        return False


def _names_at(kind: type[BaseModel], location: Location) -> list[str]:
    """Return the keys of the section at `location`, found through the annotations."""
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is not None:
            kind = section_in(field.annotation) or kind
    return list(kind.model_fields)
