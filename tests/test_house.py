"""The house: imports point down only, and every package is installed."""

import ast
import re
from functools import cache
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# A module may import from rooms below its own; rooms on one floor do not know each other.
FLOORS: list[set[str]] = [
    {"errors", "plain_text"},
    {"files", "folders", "draws", "console", "encodings", "words"},
    {"hub"},
    {"data"},
    {"model.config", "glue"},
    {"recipe", "tokenizer"},
    {"model", "corpus"},
    {"plan"},
    {"training"},
    {"pretraining", "finetuning"},
    {"export"},
    {"using"},
    {"evaluate", "predict", "embed", "fill_mask", "bench", "report", "push", "doctor"},
    {"cli"},
    {"__main__"},
]


def room(module: str) -> str:
    """`model.layers` is in the room model; model.config has a room of its own."""
    return module if module == "model.config" else module.split(".")[0]


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """The sqzb modules that a file imports, at any depth, as `model.layers`."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "sqzb":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqzb."):
            found.add((node.module or "").removeprefix("sqzb."))
    return found - {"__version__"}


MODULES = sorted((ROOT / "sqzb").rglob("*.py"))


def test_imports_point_down() -> None:
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT / "sqzb").with_suffix("").parts)
        if module.removesuffix(".__init__") == "__init__":
            continue
        for other in imported(path):
            same_room = room(other) == room(module)
            assert same_room or floor(other) < floor(module), (
                f"{module} imports {other}, which is not below it"
            )


def test_every_module_has_a_floor() -> None:
    packages = {path.name for path in (ROOT / "sqzb").iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in (ROOT / "sqzb").glob("*.py")} - {"__init__"}
    assert packages | modules | {"model.config"} == set().union(*FLOORS)


def test_every_package_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for init in (ROOT / "sqzb").rglob("__init__.py"):
        assert f'"{".".join(init.parent.relative_to(ROOT).parts)}"' in text


def test_types_are_installed() -> None:
    assert (ROOT / "sqzb" / "py.typed").exists()
    assert '"sqzb" = ["py.typed"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_torch_is_bounded_by_the_minor_version_that_the_tests_ran_with() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r'"(torch>=[^"]*)"', text)
    tested = re.search(r"^torch==(\d+)\.(\d+)\.", (ROOT / "constraints.txt").read_text(), re.M)
    assert declared and tested
    allowed = Requirement(declared[1]).specifier
    major, minor = int(tested[1]), int(tested[2])
    assert f"{major}.{minor}.9" in allowed
    assert f"{major}.{minor + 1}.0" not in allowed


def test_hooks_run_the_tools_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "whitespace"}
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].startswith((".venv/bin/", "git "))


def test_names_say_what_they_hold() -> None:
    """These say nothing about a value, and were the commonest names of earlier versions."""
    for path in MODULES:
        for node in ast.walk(tree(path)):
            named = node.arg if isinstance(node, ast.arg) else ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                named = node.id
            assert named not in ("found", "what", "which", "thing"), path


# A signal handler may only write to a descriptor: its text has names of signals only.
WRITES_ITSELF = {"console.py", "training/guards.py"}


def test_all_output_passes_the_console() -> None:
    """Elsewhere, text of users may be taken for markup, and control characters be obeyed."""
    for path in MODULES:
        if str(path.relative_to(ROOT / "sqzb")) not in WRITES_ITSELF:
            for node in ast.walk(tree(path)):
                check_output(path, node)


def check_output(path: Path, node: ast.AST) -> None:
    """Check that a node neither imports rich nor writes to a stream."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        imported_here = [*named, *(alias.name for alias in node.names)]
        assert not [name for name in imported_here if name.split(".")[0] == "rich"], path
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        text = f"{node.value.id}.{node.attr}"
        streams = ("sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "os.write")
        assert text not in streams, path
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        assert node.func.id != "print", path
