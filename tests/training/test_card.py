"""The card of a run that is written without training: its metadata, and no path of this machine."""

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cards import FACTS, read_card, text_of
from examples import scaled
from sqzb.recipe import FinetuneRecipe, PretrainRecipe, Section
from sqzb.recipe.values import LocalPath, at_home
from sqzb.training.card import LICENCES, PATHS, Figure, write_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_run(folder: Path, model_type: str = "squeezebert", **about: Any) -> Path:
    """Write what a card needs of a run."""
    (folder / "final").mkdir(parents=True, exist_ok=True)
    (folder / "final" / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "run.json").write_text(json.dumps({"hub": {}, "hardware": {}} | about))
    return folder


def path_keys(kind: type[BaseModel]) -> set[str]:
    """Return the keys of a recipe, and of its sections, whose values may be paths."""
    found = set()
    for key, field in kind.model_fields.items():
        (plain,) = [part for part in (field.annotation,) if part is not None]
        parts = {plain, *getattr(plain, "__args__", ())}
        for section in parts:
            if isinstance(section, type) and issubclass(section, BaseModel):
                found |= path_keys(section)
        is_listed = any("listed" in repr(one) for one in field.metadata)
        if is_listed or any(at_home in vars_of(one) for one in [*field.metadata, *parts]):
            found.add(key)
    return found


def vars_of(annotation: Any) -> list[Any]:
    """Return the functions in the metadata of an annotation such as LocalPath."""
    parts = [annotation, *getattr(annotation, "__metadata__", ())]
    return [getattr(part, "func", None) for part in parts]


def test_every_key_that_is_a_path_is_known() -> None:
    assert vars_of(LocalPath)[1] is at_home
    keys = path_keys(FinetuneRecipe) | path_keys(PretrainRecipe) | {"teacher"}
    assert keys == PATHS


names = st.text("abcdefgh-._ é", min_size=3, max_size=12).map(lambda name: f"q{name}q")
absolute = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/home/" + "/".join(parts))
relative = st.lists(names, min_size=3, max_size=4).map("/".join)
paths = st.one_of(absolute, relative, names.map(lambda name: f"runs/{name}"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=scaled(10))
@given(st.lists(paths, min_size=10, max_size=10, unique=True))
def test_no_path_is_in_a_card(tmp_path: Path, given_paths: list[str]) -> None:
    path = iter(given_paths)
    labelled = {"train": (next(path),), "validation": (next(path),), "test": (next(path),)}
    learnt = {"teacher": (next(path), next(path)), "cache": next(path), "unlabelled": next(path)}
    finetuning = FinetuneRecipe.model_validate(
        {"data": labelled, "distillation": learnt, "model": next(path), "output": next(path)}
    )
    pretraining = PretrainRecipe.model_validate(
        {
            "corpus": given_paths[0],
            "output": given_paths[1],
            "start_from": given_paths[2],
            "distillation": {"teacher": given_paths[3]},
        }
    )
    for recipe, start in ((finetuning, finetuning.model), (pretraining, pretraining.start_from)):
        run = a_run(tmp_path / "a home" / "a run")
        write_card(run, recipe, FACTS._replace(start=start))
        read_card(run)
        text = text_of(run)
        assert not any(one in text for one in given_paths)
        assert str(tmp_path) not in text and "a home" not in text and str(Path.home()) not in text


@pytest.mark.parametrize(
    "recipe",
    [
        FinetuneRecipe(task="rte", model="owner/model@v1", glue_dir="nyu-mll/glue@main"),
        PretrainRecipe(start_from="owner/model@v1"),
    ],
    ids=["finetune", "pretrain"],
)
def test_a_model_of_the_hub_is_named(tmp_path: Path, recipe: Section) -> None:
    run = a_run(tmp_path, hub={"owner/model": COMMIT, "nyu-mll/glue": COMMIT})
    facts = FACTS._replace(start="owner/model@v1", datasets=["nyu-mll/glue"], language="en")
    write_card(run, recipe, facts)
    card = read_card(run)
    assert card.base_model == "owner/model" and card.datasets == ["nyu-mll/glue"]
    assert f"started from owner/model, commit {COMMIT}" in text_of(run)
    assert "owner/model@v1" in text_of(run).partition("## Recipe")[2]
    # A folder of the same name is no model of the Hub.
    write_card(a_run(tmp_path), recipe, facts)
    assert read_card(run).base_model is None and "owner/model" not in text_of(run)


def test_facts_come_from_the_card_of_the_start_model(tmp_path: Path) -> None:
    start = a_run(tmp_path / "start", hub={"owner/model": COMMIT})
    recipe = PretrainRecipe(start_from="owner/model")
    facts = FACTS._replace(start="owner/model", datasets=["owner/text"], language="de")
    write_card(start, recipe, facts)
    for given_start in (start, start / "final"):
        run = a_run(tmp_path / "run")
        write_card(run, recipe, FACTS._replace(start=str(given_start), datasets=["owner/labels"]))
        data = read_card(run)
        assert data.base_model == "owner/model" and data.language == "de"
        assert data.datasets == ["owner/labels", "owner/text"]


@pytest.mark.parametrize("content", ["", "---\n- 1\n---\n", "---\n[\n---\n", "\x00", "no metadata"])
def test_a_strange_card_of_the_start_model_is_ignored(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "README.md").write_text(content)
    run = a_run(tmp_path / "run")
    caplog.set_level("WARNING")
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)  # it hands nothing upwards
    try:
        write_card(run, FinetuneRecipe(), FACTS._replace(start=str(tmp_path / "start")))
    finally:
        logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    assert "metadata" not in caplog.text
    assert read_card(run).base_model is None


@given(licences=st.dictionaries(names, st.none() | st.sampled_from(["MIT", "mit", "odd | one\n#"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=scaled(7))
def test_a_licence_is_that_of_all_data(tmp_path: Path, licences: dict[str, str | None]) -> None:
    run = a_run(tmp_path)
    write_card(run, FinetuneRecipe(), FACTS._replace(licences=licences))
    all_mit = {(name or "").lower() for name in licences.values()} == {"mit"}
    assert read_card(run).license == ("mit" if all_mit else None)
    assert ("# license: left out, because" in text_of(run)) is not all_mit


def test_licences_are_as_the_hub_writes_them() -> None:
    assert all(name == name.lower() and " " not in name for name in LICENCES)


@given(st.lists(st.text(min_size=1), max_size=5, unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=scaled(10))
def test_any_labels_make_rows(tmp_path: Path, labels: list[str]) -> None:
    labels = [label.encode("utf-8", "ignore").decode() for label in labels]
    run = a_run(tmp_path)
    write_card(run, FinetuneRecipe(), FACTS._replace(labels=labels))
    read_card(run)
    after = text_of(run).partition("| index | label |\n")[2].split("\n")
    rows = list(itertools.takewhile(lambda row: row.startswith("|"), after))
    assert len(rows) == (len(labels) + 1 if labels else 0)


def test_figures_have_seed_and_unit_and_what_is_not_finite_is_no_metadata(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    figures = [*FACTS.figures, Figure("loss", float("nan"), "nats", "loss", "validation")]
    write_card(run, FinetuneRecipe(seed=7), FACTS._replace(figures=figures))
    (result,) = read_card(run).eval_results or []
    assert result.metric_args == {"seed": 7, "unit": "share, 0 to 1"}
    assert result.metric_value == 0.5 and "| loss | nan | nats |" in text_of(run)


def test_a_model_of_another_type_has_its_tag(tmp_path: Path) -> None:
    run = a_run(tmp_path, model_type="bert")
    write_card(run, FinetuneRecipe(), FACTS)
    assert read_card(run).tags == ["bert", "sqzb"] and "SqueezeBERT" not in text_of(run)
