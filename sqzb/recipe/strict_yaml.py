"""Strict YAML: numbers as in YAML 1.2, no duplicate keys, and errors that name the line."""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

# Characters of a text, and of its values with every alias written out. Recipes have a few thousand.
MOST_CHARACTERS = 2**18
MOST_DIGITS = 100


class _Loader(yaml.SafeLoader):
    """A loader with YAML 1.2's numbers (`1e-3` is a number), which rejects duplicate keys."""

    def get_single_node(self) -> Any:
        """Return the root node, unless its aliases stand for too much or for themselves."""
        root = super().get_single_node()
        if root is not None:
            _check_size(root, {})
        return root

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # others fail below
        keys: set[Hashable] = set()
        for node_of_key, _ in pairs:
            key = self.construct_object(node_of_key, deep=True)
            if not isinstance(key, Hashable):
                continue  # fails below
            if key in keys:
                problem, mark = f"{key} is set twice", node_of_key.start_mark
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            keys.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _check_size(node: Any, sizes: dict[int, int]) -> int:
    """Return the characters of a node with every alias written out.

    sizes: of the nodes that were measured; 0 for a node around this one.

    Raises:
        yaml.constructor.ConstructorError: There are more than MOST_CHARACTERS, or an alias stands
            for a value that holds the alias.
    """
    known = sizes.get(id(node))
    if known is not None:
        if not known:
            raise _refused("an alias stands for a value that holds the alias", node)
        return known
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.ScalarNode):
        size += len(node.value)
        if node.tag == "tag:yaml.org,2002:int" and size > MOST_DIGITS:
            raise _refused(f"a number of over {MOST_DIGITS} digits", node)
    else:
        for value in node.value:
            parts = value if isinstance(node, yaml.MappingNode) else [value]
            size += sum(_check_size(part, sizes) for part in parts)
            if size > MOST_CHARACTERS:
                raise _refused(f"aliases stand for over {MOST_CHARACTERS:,} characters", node)
    sizes[id(node)] = size
    return size


def _refused(problem: str, node: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which the loader would read as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: the text cannot be read, for whatever reason.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has over {MOST_CHARACTERS:,} characters")
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
