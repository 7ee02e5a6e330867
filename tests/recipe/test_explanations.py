"""What a refused recipe or override is answered with."""

from pathlib import Path

import pytest

from sqzb.errors import RecipeError
from sqzb.recipe import CorpusRecipe, PretrainRecipe, Section, SweepRecipe, load_recipe
from sqzb.recipe.commands import COMMANDS
from sqzb.recipe.explanations import ALIASES
from sqzb.recipe.reference import keys


def refusal(kind: type[Section], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(kind, None, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "override", "answer"),
    [
        (SweepRecipe, "optimizer.lr=1e-3", "optimizer.lr: unknown key; did you mean lr?"),
        (SweepRecipe, "learning_rate=1e-3", "learning_rate: unknown key; did you mean lr?"),
        (SweepRecipe, "steps=10", "steps: unknown key; did you mean epochs?"),
        (
            SweepRecipe,
            "teacher=x",
            "teacher: unknown key; did you mean distillation.teacher or stages.NAME.teacher?",
        ),
        (
            SweepRecipe,
            "tasks.rte.learning_rate=1",
            "tasks.rte.learning_rate: unknown key; did you mean lr?",
        ),
        (PretrainRecipe, "lr=1e-3", "lr: unknown key; did you mean optimizer.lr?"),
        (
            PretrainRecipe,
            "optimizer.learning_rate=1",
            "optimizer.learning_rate: unknown key; did you mean lr?",
        ),
        (PretrainRecipe, "training.lr=1", "training.lr: unknown key; did you mean optimizer.lr?"),
        (
            PretrainRecipe,
            "hidden_size=3",
            "hidden_size: unknown key; did you mean model.hidden_size?",
        ),
        (PretrainRecipe, "batch_size=3", "batch_size: unknown key; did you mean global_batch?"),
        (
            CorpusRecipe,
            "path=x",
            "path: unknown key; did you mean sources.NAME.path or vocabulary.path?",
        ),
        (
            SweepRecipe,
            "sweep.lr=1e-3,1e-4",
            "sweep.lr: should be a valid list, not '1e-3,1e-4': write [1e-3,1e-4]",
        ),
        (SweepRecipe, "sweep.seed=1", "sweep.seed: should be a valid list, not 1: write [1]"),
        (
            PretrainRecipe,
            "steps='600'",
            "steps: should be a valid integer, not '600': write 600, without quotes",
        ),
        (
            PretrainRecipe,
            "sop='false'",
            "sop: should be a valid boolean, not 'false': write false, without quotes",
        ),
        (PretrainRecipe, "steps=many", "steps: should be a valid integer, not 'many'"),
        (PretrainRecipe, "optimizer=3", "optimizer: should be a section, with keys inside, not 3"),
        (SweepRecipe, "glue", "glue: is a recipe, not a KEY=VALUE: give it as --recipe glue"),
        (
            SweepRecipe,
            "a/b.yaml",
            "a/b.yaml: is a recipe, not a KEY=VALUE: give it as --recipe a/b.yaml",
        ),
    ],
)
def test_an_override_is_answered_with_what_was_probably_meant(
    kind: type[Section], override: str, answer: str
) -> None:
    assert f"\n  {answer}\n" in refusal(kind, override) + "\n"


def test_the_keys_of_a_section_are_listed_once() -> None:
    message = refusal(PretrainRecipe, "zzzz=1", "qqqq=1", "optimizer.zzzz=1", "optimizer.qqqq=1")
    assert message.count("evaluate_sequences") == 1 and message.count("decay_power") == 1
    assert message.count("unknown key") == 4


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["steps", "=", "10"], "steps = 10: leave out the spaces: steps=10"),
        (["steps=", "10"], "steps= 10: leave out the spaces: steps=10"),
        (["steps", "=10"], "steps =10: leave out the spaces: steps=10"),
    ],
)
def test_spaces_around_the_sign_are_one_problem(overrides: list[str], answer: str) -> None:
    message = refusal(PretrainRecipe, "model={}", *overrides, "sop=false", "lr")
    problems = message.split("\n  ")[1:]
    assert problems == [answer, "lr: an override is KEY=VALUE, such as seed=1"]


def test_an_empty_value_before_another_override_is_no_space() -> None:
    assert load_recipe(SweepRecipe, None, ["task=", "lr=3"]).task is None


def test_every_alias_stands_for_a_key() -> None:
    known = {key.rpartition(".")[2] for kind in COMMANDS.values() for key, _ in keys(kind)}
    for meant in ALIASES.values():
        assert known.issuperset(meant)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "seed: 1\nlr 1e-3\nsteps: 2\n",
            "line 2, column 1: could not find expected ':'\n    lr 1e-3\n    ^",
        ),
        ("optimizer:\n\tlr: 1\n", "line 2, column 1: a tab, where YAML has spaces only\n"),
        ("steps: 1\n\nsteps: 2\n", "line 3, column 1: steps is set twice\n    steps: 2\n    ^"),
        ("optimizer: {lr: 1, lr: 2}\n", "line 1, column 20: lr is set twice\n"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here\n"),
        ("a: [1\n", "line 2, column 1: "),
    ],
)
def test_a_yaml_error_names_its_line(tmp_path: Path, text: str, answer: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(PretrainRecipe, path)
    message = str(caught.value)
    assert (
        f"The recipe {path} is not valid YAML: {answer}" in message
        and "unicode string" not in message
    )
