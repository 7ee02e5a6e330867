"""The README and docs/ name nothing that is not there: links, commands, options, recipes, files."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from sqzb.cli import app
from sqzb.recipe import load_recipe
from sqzb.recipe.commands import COMMANDS, command_of
from sqzb.recipe.reading import command_for
from sqzb.recipe.shipped import names
from sqzb.recipe.strict_yaml import parse

ROOT = Path(__file__).parents[1]
AT_THE_TOP = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
PAGES = [ROOT / name for name in AT_THE_TOP] + sorted((ROOT / "docs").glob("*.md"))
WRITER = ROOT / "scripts" / "write_reference.py"
SKY_FILES = sorted((ROOT / "cloud").glob("*.sky.yaml"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# A command, behind a prompt of its own or behind a launcher such as torchrun.
SQZB = re.compile(r"(?:^\s*|-m )sqzb(?=\s)(.*)")
# A path in the repository; what a run writes or a user has lies in other folders.
PATH = re.compile(r"(?<![\w/.])(?:recipes|scripts|docs|tests)/[\w/.-]*\w")
ROOMS = "model|corpus|data|glue|recipe|training|pretraining|finetuning"
MODULES = re.compile(rf"`((?:{ROOMS})/[\w/]+\.py)`")
# A test as the table of guarantees names it, from the folder tests/.
TESTS = re.compile(r"\b(?:reliability|pretraining|finetuning|training|corpus)/test_\w+\.py")


class Shown(NamedTuple):
    """A line of a shell block, and the name of its page or recipe."""

    page: str
    line: str


def shell_lines() -> list[Shown]:
    """Return the lines of shell blocks and of comments in recipes; continued lines are joined."""
    texts = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            texts.append((page.name, block))
    for recipe in RECIPES:
        comments = re.sub("^#", "", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
        texts.append((recipe.name, comments))
    for path in SKY_FILES:
        for job in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            texts.append((path.name, job.get("run", "")))
    joined = [(name, text.replace("\\\n", " ")) for name, text in texts]
    return [Shown(name, line) for name, text in joined for line in text.splitlines()]


def help_examples(name: str = "sqzb", command: Any = None) -> Iterator[Shown]:
    """Yield the example of a command's help, and those of its subcommands."""
    command = command or typer.main.get_command(app)
    example = re.search(r"Example: (.*)", command.epilog or "")
    assert example is not None, f"{name} --help has no example"
    yield Shown(f"{name} --help", example[1])
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from help_examples(f"{name} {inner}", subcommand)


def sqzb_commands() -> list[Shown]:
    """Return the arguments of every sqzb command that is shown."""
    lines = [*shell_lines(), *help_examples()]
    matches = [(shown.page, SQZB.search(shown.line)) for shown in lines]
    return [Shown(page, match[1]) for page, match in matches if match]


def script_commands() -> list[Shown]:
    """Return every call of a script that is shown."""
    return [shown for shown in shell_lines() if re.match(r"\s*python scripts/", shown.line)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in plain}


def links() -> list[tuple[Path, str]]:
    """Return every link to a file or an anchor of this repository."""
    pairs = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        targets = re.findall(r"\]\(([^)\s]+)\)", text)
        local = [target for target in targets if not re.match("https?:", target)]
        pairs += [(page, target) for target in local]
    return pairs


def shown_id(shown: Shown) -> str:
    return f"{shown.page}:{shown.line}"


@pytest.mark.parametrize(("page", "target"), links())
def test_a_link_leads_to_a_file_and_a_heading(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    assert linked.is_file()
    if anchor:
        assert anchor in anchors(linked)


@pytest.mark.parametrize("shown", sqzb_commands(), ids=shown_id)
def test_a_shown_command_exists(shown: Shown) -> None:
    """typer knows its options and arguments, and the recipe loads with the overrides."""
    name, arguments = "sqzb", shlex.split(shown.line, comments=True)
    command: Any = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, *arguments = arguments
        command = command.commands[name]
    if hasattr(command, "commands"):  # else the first argument names no command
        assert all(argument.startswith("-") for argument in arguments)
    try:
        given = command.make_context(name, arguments).params
    except typer.Exit as ended:  # --help and --version
        assert ended.exit_code == 0
        return
    recipe = given.get("recipe")
    if recipe is not None:
        in_checkout = ROOT / recipe
        path = in_checkout if in_checkout.exists() else recipe  # else the name of a recipe
        kind = COMMANDS[command_for(Path(path)) if name == "plan" else name]
        load_recipe(kind, path, given.get("overrides") or ())
    if name in ("show", "copy"):
        assert given["name"] in names()


def test_commands_are_found_where_they_are_shown() -> None:
    pages = {shown.page for shown in sqzb_commands()}
    assert {"README.md", "reproduce.md", "glue.md", "distributed.md", "phase1_128.yaml"} <= pages
    assert "pretrain.sky.yaml" in pages
    assert {"sqzb --help", "sqzb finetune --help", "sqzb recipes keys --help"} <= pages
    assert {shown.page for shown in script_commands()} >= {"performance.md", "results.md"}


@pytest.mark.parametrize("shown", script_commands(), ids=shown_id)
def test_a_shown_script_has_its_options(shown: Shown) -> None:
    script, *arguments = shlex.split(shown.line, comments=True)[1:]
    shared = sorted((ROOT / "sqzb" / "bench").glob("*.py"))
    sources = "".join(path.read_text(encoding="utf-8") for path in [ROOT / script, *shared])
    for argument in arguments:
        if argument.startswith("--"):
            assert f'"{argument}"' in sources, f"{script} has no option {argument}"


def yaml_blocks() -> list[tuple[str, str]]:
    """Return every YAML block, with the name of its page."""
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "block"), yaml_blocks())
def test_a_shown_recipe_loads(page: str, block: str, tmp_path: Path) -> None:
    recipe = tmp_path / "shown.yaml"
    recipe.write_text(block, encoding="utf-8")
    load_recipe(COMMANDS[command_of(parse(block))], recipe)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_named_file_of_the_repository_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for module in MODULES.findall(text):
        assert (ROOT / "sqzb" / module).exists(), f"{page.name} names {module}"
    for test in TESTS.findall(text):
        assert (ROOT / "tests" / test).exists(), f"{page.name} names {test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    for target in shown:
        assert re.search(f"^{target}:", makefile, re.MULTILINE)


def picture() -> set[str]:
    """Return the files in the architecture page's tree, which indents by two blanks a folder."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(sqzb/\n.*?)```", page, re.DOTALL)
    assert tree is not None
    folders: list[str] = []
    files = set()
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        if name.endswith(".py"):
            files.add("".join(folders))
    return files


def test_the_picture_of_the_rooms_is_the_tree() -> None:
    paths = [path for path in (ROOT / "sqzb").rglob("*.py") if not path.name.startswith("__")]
    modules = {path.relative_to(ROOT).as_posix() for path in paths}
    assert picture() == modules


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in navigation


def test_the_reference_is_that_of_the_code() -> None:
    specification = importlib.util.spec_from_file_location("write_reference", WRITER)
    assert specification is not None and specification.loader is not None
    writer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(writer)
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == writer.page(), "run python scripts/write_reference.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
