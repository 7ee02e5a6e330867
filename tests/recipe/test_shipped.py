"""Recipes that come with sqzb: found by name from anywhere, listed, copied, installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from sqzb.errors import RecipeError, UserError
from sqzb.recipe import CorpusRecipe, FinetuneRecipe, PretrainRecipe, SweepRecipe, load_recipe
from sqzb.recipe.commands import COMMANDS, command_of
from sqzb.recipe.shipped import copy, find, folder, listed, named, names

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without recipes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_checkouts_recipes_are_the_shipped_ones() -> None:
    assert folder() == ROOT / "recipes"
    assert names() == sorted(path.stem for path in (ROOT / "recipes").iterdir())


@pytest.mark.parametrize("given", ["phase1_128", "phase1_128.yaml"])
def test_a_recipe_is_found_by_its_name(given: str) -> None:
    assert find(Path(given)) == ROOT / "recipes" / "phase1_128.yaml"
    assert load_recipe(PretrainRecipe, Path(given), ["steps=3"]).steps == 3


@pytest.mark.parametrize("given", ["corpus", "corpus.yaml"])
@pytest.mark.parametrize("written", ["corpus", "corpus.yaml"])
def test_a_file_wins_over_a_shipped_recipe(elsewhere: Path, written: str, given: str) -> None:
    (elsewhere / written).write_text("sources: {mine: {path: texts}}")
    if (written, given) == ("corpus", "corpus.yaml"):  # another file
        assert find(Path(given)) == named("corpus")
    else:
        assert list(load_recipe(CorpusRecipe, Path(given)).sources) == ["mine"]


def test_a_folder_does_not_hide_a_shipped_recipe(elsewhere: Path) -> None:
    (elsewhere / "glue").mkdir()
    assert find(Path("glue")) == named("glue")


def test_a_pipe_is_a_recipe(elsewhere: Path) -> None:
    os.mkfifo(elsewhere / "pipe")
    assert find(Path("pipe")) == Path("pipe")


def test_a_folder_is_refused_with_a_file_in_it(elsewhere: Path) -> None:
    run = elsewhere / "run"
    run.mkdir()
    with pytest.raises(
        RecipeError, match=r"run cannot be read, because it is a folder. Give a YAML file\.$"
    ):
        find(Path("run"))
    (run / "a.yaml").touch()
    with pytest.raises(RecipeError, match=r"Give a YAML file, such as run/a\.yaml\.$"):
        find(Path("run"))
    (run / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match=r"Give a YAML file, such as run/recipe\.yaml\.$"):
        find(Path("run"))


@pytest.mark.parametrize(
    "given", ["phase1", "phase1_182.yaml", "recipes/phase1_128.yaml", "/nowhere/phase1_128.yml"]
)
def test_a_missing_recipe_is_answered_with_all_names_the_nearest_first(given: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find(Path(given))
    message = str(caught.value)
    assert message.startswith(
        f"There is no recipe {given}, neither a file nor one that comes with sqzb, which has "
        "phase1_128,"
    )
    assert all(f" {name}" in message for name in names())


def test_keys_in_the_recipes_place_are_told_apart() -> None:
    with pytest.raises(
        RecipeError, match=r"Give the recipe before the keys to change: RECIPE steps=10$"
    ):
        load_recipe(PretrainRecipe, Path("steps=10"))


def test_the_list_has_a_line_for_each_recipe_by_command() -> None:
    rows = [line.split(maxsplit=2) for line in listed()]
    assert sorted(name for _, name, _ in rows) == names()
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=list(COMMANDS).index)
    for command, name, description in rows:
        path = ROOT / "recipes" / f"{name}.yaml"
        load_recipe(COMMANDS[command], path)
        assert path.read_text().startswith(f"# {description}\n")
    assert max(map(len, listed())) <= 80


@pytest.mark.parametrize("kind", [CorpusRecipe, PretrainRecipe, FinetuneRecipe, SweepRecipe])
@pytest.mark.parametrize("name", names())
def test_another_commands_recipe_is_recognised(kind: type, name: str) -> None:
    command = command_of(yaml.safe_load(named(name).read_text()))
    if issubclass(COMMANDS[command], kind):
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe(kind, named(name), ["output=x"])
    assert f"{named(name)} is a " in str(caught.value)
    assert f"recipe: use sqzb {command} " in str(caught.value) and str(caught.value).endswith(
        str(named(name))
    )
    assert "unknown key" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        (
            PretrainRecipe,
            "sources: {a: {path: x}}",
            "is a corpus recipe: use sqzb prepare-corpus mine.yaml",
        ),
        (
            SweepRecipe,
            "{corpus: x, output: y}",
            "is a pretraining recipe: use sqzb pretrain mine.yaml",
        ),
        (
            PretrainRecipe,
            "{lr: 1, epochs: 3}",
            "is a finetuning recipe: use sqzb finetune --recipe mine.yaml",
        ),
        # Slips in a recipe of the command itself.
        (PretrainRecipe, "lr: 1", "lr: unknown key; did you mean optimizer.lr?"),
        (
            PretrainRecipe,
            "{model: {}, steps: 5, lr: 1, batch: 3, epochs: 2}",
            "epochs: unknown key; did you mean steps?",
        ),
        (
            SweepRecipe,
            "{task: mrpc, optimizer: {lr: 1}}",
            "optimizer.lr: unknown key; did you mean lr?",
        ),
    ],
)
def test_a_slip_is_told_apart_from_another_commands_recipe(
    elsewhere: Path, kind: type, text: str, complaint: str
) -> None:
    (elsewhere / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(kind, Path("mine.yaml"))
    assert complaint in str(caught.value)


def test_a_copy_is_the_recipe_and_overwrites_nothing(elsewhere: Path) -> None:
    original = named("corpus").read_bytes()
    assert (
        copy("corpus", None) == Path("corpus.yaml") and Path("corpus.yaml").read_bytes() == original
    )
    assert copy("corpus.yaml", Path("new/mine.yaml")) == Path("new/mine.yaml")
    assert (
        copy("corpus", Path("new")).read_bytes() == Path("new/corpus.yaml").read_bytes() == original
    )
    Path("corpus.yaml").write_text("mine")
    for target in (None, Path("corpus.yaml"), Path(".")):
        with pytest.raises(UserError, match=r"corpus.yaml exists and is not overwritten"):
            copy("corpus", target)
    assert Path("corpus.yaml").read_text() == "mine"
    with pytest.raises(OSError, match=r"corpus\.yaml"):
        copy("corpus", Path("corpus.yaml/inside.yaml"))
    with pytest.raises(
        RecipeError, match=r"There is no recipe corpse that comes with sqzb, which has corpus,"
    ):
        copy("corpse", None)


def test_a_wheel_has_the_recipes_and_an_installed_package_finds_them(elsewhere: Path) -> None:
    pytest.importorskip("setuptools", "77")
    source = elsewhere / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("sqzb", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(elsewhere)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = elsewhere.glob("*.whl")
    installed = elsewhere / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    program = "from sqzb.recipe.shipped import folder, names; print(folder(), *names())"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert ended.stdout.split() == [str(installed / "sqzb" / "recipes"), *names()]
