"""Count what makes code easy to read: docstrings, comments, tokens a line, nested comprehensions.

    python scripts/style_figures.py [FOLDER ...]

Code lines are those with a token that is no comment and no docstring. The table has a row for each
folder, by default the package's own.
"""

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

from sqzb import console
from sqzb.bench.report import parser

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def main() -> None:
    arguments = parser(__doc__)
    package = Path(__file__).parents[1] / "sqzb"
    arguments.add_argument("folders", nargs="*", type=Path, default=[package])
    rows = []
    for folder in arguments.parse_args().folders:
        counts: Counter[str] = Counter()
        for path in folder.rglob("*.py"):
            counts.update(figures(path.read_text(encoding="utf-8")))
        lines = counts["code lines"]
        rows.append(
            (
                str(folder),
                f"{lines:,}",
                f"{counts['tokens'] / lines:.2f}",
                f"{100 * counts['comments'] / lines:.2f}",
                f"{1000 * counts['nested comprehensions'] / lines:.2f}",
                f"{counts['public without docstring']:,} of {counts['public']:,}",
            )
        )
    header = ("folder", "code lines", "tokens a code line", "comments in 100", "nested in 1,000")
    console.table("Style", (*header, "public without docstring"), rows)


def figures(text: str) -> Counter[str]:
    """Return the counts of a file."""
    tree = ast.parse(text)
    docstrings = docstring_lines(tree)
    counts: Counter[str] = Counter()
    code_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            counts["comments"] += 1
        elif token.type not in NO_CODE and token.start[0] not in docstrings:
            counts["tokens"] += 1
            code_lines.add(token.start[0])
    counts["code lines"] = len(code_lines)

    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inside = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
            counts["nested comprehensions"] += len(inside) > 1
        if isinstance(node, (ast.Module, *DEFINITIONS)) and is_public(node):
            counts["public"] += 1
            counts["public without docstring"] += ast.get_docstring(node) is None
    return counts


def is_public(node: ast.AST) -> bool:
    """Return whether a definition has a name without an underscore in front; a module has."""
    return not str(getattr(node, "name", "module")).startswith("_")


def docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, *DEFINITIONS)) or ast.get_docstring(node) is None:
            continue
        first = node.body[0]
        lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


if __name__ == "__main__":
    main()
