"""Strict YAML: numbers as in YAML 1.2, no duplicate keys, and errors that name the line."""

import math
import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """A loader with YAML 1.2's numbers (`1e-3` is a number), which rejects duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # others fail below
        keys: list[Any] = []
        for node_of_key, _ in pairs:
            key = self.construct_object(node_of_key, deep=True)
            if key in keys:
                problem, mark = f"{key} is set twice", node_of_key.start_mark
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            keys.append(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which the loader would read as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: the text cannot be read, for whatever reason.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    # PyYAML lets errors of int(), datetime and the stack through: 2020-13-45, [[[[...
    except Exception as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def parse_value(text: str) -> Any:
    """Return the value of a YAML text of one value, without a comment behind it.

    Raises:
        yaml.YAMLError: the text is not such a value.
    """
    value = parse(text)
    node = yaml.compose(text, _Loader)
    behind = "" if node is None else text[node.end_mark.index :].strip()
    if behind.startswith("#") or (node is None and text.strip()):
        raise yaml.YAMLError(f"{behind or text!r} is a comment")
    return value


def dump(values: Any, in_line: bool = False) -> str:
    """Return the values as YAML that `parse` reads as the same values, in their order.

    in_line: write one line, with brackets.
    """
    return yaml.dump(
        values,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=in_line,
        width=math.inf if in_line else None,
    )


def explain(error: yaml.YAMLError, text: str) -> str:
    """Return where and why a text is not YAML, with the line that is wrong."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).replace('in "<unicode string>", ', "").split())
    mark, problem = error.problem_mark, error.problem
    if error.context == "while scanning a simple key" and error.context_mark is not None:
        # The line without a colon; the problem's mark is on the line behind it.
        mark = error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if line[mark.column : mark.column + 1] == "\t":
        problem = "a tab, where YAML has spaces only"
    shown = f"\n    {line}\n    {' ' * mark.column}^" if line.strip() else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{shown}"
