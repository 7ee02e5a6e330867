"""A key that has no effect is an error in a recipe that a user gives, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.corpus.source_keys import check_keys
from sqzb.errors import RecipeError
from sqzb.recipe import (
    CorpusRecipe,
    FinetuneRecipe,
    PretrainRecipe,
    Section,
    Source,
    SweepRecipe,
    dump_recipe,
    load_recipe,
)
from sqzb.recipe.languages import LANGUAGES, unknown_language

CORPUS = ["sources.a.path=a.txt"]
PRETRAIN = ["model={}"]
ADAMW, MUON = ["optimizer.name=adamw"], ["optimizer.name=muon"]
WSD, COSINE = ["optimizer.schedule=wsd"], ["optimizer.schedule=cosine"]
FROM = ["start_from=a"]
OWN = ["data.train=a.csv"]
GLUE = ["task=mrpc"]
STAGES = ["stages={big: {}, small: {teacher: big}}", *GLUE]

# The keys of a recipe, and the key among them that has no effect.
UNREAD: list[tuple[type[Section], list[str], str]] = [
    (CorpusRecipe, [*CORPUS, "vocabulary.path=v", "vocabulary.lowercase=false"], "lowercase"),
    (CorpusRecipe, [*CORPUS, "vocabulary.path=v", "vocabulary.strip_accents=true"], "strip"),
    (CorpusRecipe, [*CORPUS, "vocabulary.path=v", "vocabulary.size=8000"], "vocabulary.size"),
    (CorpusRecipe, [*CORPUS, "vocabulary.path=v", "vocabulary.sample_characters=9"], "sample"),
    (CorpusRecipe, [*CORPUS, "language=klingon"], "language"),
    (CorpusRecipe, [*CORPUS, "language=de", "english_only=true"], "english_only"),
    (PretrainRecipe, [*PRETRAIN, "distillation.temperature=4"], "distillation.temperature"),
    (PretrainRecipe, [*PRETRAIN, "distillation.alpha=0.5"], "distillation.alpha"),
    (PretrainRecipe, [*PRETRAIN, "on_spike=rollback"], "on_spike"),
    (PretrainRecipe, [*PRETRAIN, "optimizer.rest_lr=2e-3"], "optimizer.rest_lr"),
    (PretrainRecipe, [*PRETRAIN, *ADAMW, "optimizer.momentum=0.9"], "optimizer.momentum"),
    (PretrainRecipe, [*PRETRAIN, "optimizer.cooldown=0.1"], "optimizer.cooldown"),
    (PretrainRecipe, [*PRETRAIN, *COSINE, "optimizer.cooldown=0.1"], "optimizer.cooldown"),
    (PretrainRecipe, [*PRETRAIN, *COSINE, "optimizer.decay_power=2"], "optimizer.decay_power"),
    (PretrainRecipe, [*PRETRAIN, "averaging.every=2"], "averaging.every"),
    (PretrainRecipe, [*PRETRAIN, "masking_rate_end=0.15"], "masking_rate_end"),
    (PretrainRecipe, [*FROM, "initialisation.unigram_bias=true"], "initialisation.unigram_bias"),
    (PretrainRecipe, [*FROM, "initialisation.depth_scaled=true"], "initialisation.depth_scaled"),
    (PretrainRecipe, [*PRETRAIN, "averaging.final=true"], "averaging.final"),
    (PretrainRecipe, ["model.id2label={0: a}"], "model.id2label"),
    (PretrainRecipe, ["model.pad_token_id=3"], "model.pad_token_id"),
    (PretrainRecipe, ["model.problem_type=regression", "model.id2label={0: a}"], "problem_type"),
    (PretrainRecipe, ["model.calibration_temperature=2"], "model.calibration_temperature"),
    (PretrainRecipe, ["model.label_scale=[1, 2]"], "model.label_scale"),
    (SweepRecipe, [*GLUE, "on_spike=rollback"], "on_spike"),
    (SweepRecipe, [*GLUE, "distillation.alpha=0.5"], "distillation.alpha"),
    (SweepRecipe, [*GLUE, "distillation.cache=elsewhere"], "distillation.cache"),
    (SweepRecipe, [*GLUE, "distillation.augment=2"], "distillation.augment"),
    (SweepRecipe, [*GLUE, "sweep.distillation.alpha=[0.1, 0.9]"], "distillation.alpha"),
    (SweepRecipe, [*GLUE, "tasks.mrpc.distillation.alpha=0.1"], "distillation.alpha"),
    (SweepRecipe, [*GLUE, "tasks.mrpc.on_spike=rollback"], "on_spike"),
    (SweepRecipe, [*STAGES, "stages.big.distillation.alpha=0.1"], "stages.big.distillation.alpha"),
    (
        SweepRecipe,
        ["task=stsb", "distillation.teacher=t", "distillation.temperature=4"],
        "distillation.temperature",
    ),
    (SweepRecipe, [*OWN, "glue_dir=glue"], "glue_dir"),
    (SweepRecipe, [*OWN, "data.split=validation"], "data.split"),
    (SweepRecipe, [*OWN, "data.revision=abc"], "data.revision"),
    (SweepRecipe, [*OWN, "data.kind=classes", "data.separator=;"], "data.separator"),
    (SweepRecipe, [*OWN, "data.validation=b.csv", "data.holdout=0.2"], "data.holdout"),
    (SweepRecipe, [*GLUE, "data.holdout=0.2"], "data.holdout"),
]
READ: list[tuple[type[Section], list[str]]] = [
    (CorpusRecipe, [*CORPUS, "vocabulary.path=v", "vocabulary.size=30522"]),  # the default
    (CorpusRecipe, [*CORPUS, "vocabulary.lowercase=false", "vocabulary.strip_accents=true"]),
    (CorpusRecipe, [*CORPUS, "english_only=true"]),
    (PretrainRecipe, [*PRETRAIN, "distillation.temperature=4", "distillation.teacher=t"]),
    (PretrainRecipe, [*PRETRAIN, "on_spike=rollback", "spike_factor=2"]),
    (PretrainRecipe, [*PRETRAIN, *MUON, "optimizer.rest_lr=2e-3", "optimizer.momentum=0.9"]),
    (PretrainRecipe, [*PRETRAIN, *WSD, "optimizer.cooldown=0.1", "optimizer.decay_power=2"]),
    (PretrainRecipe, [*PRETRAIN, *COSINE, "optimizer.floor=0.1"]),
    (PretrainRecipe, [*PRETRAIN, "averaging.share=0.1", "averaging.final=true"]),
    (PretrainRecipe, [*PRETRAIN, "masking_rate=0.3", "masking_rate_end=0.15"]),
    (PretrainRecipe, [*PRETRAIN, "initialisation.unigram_bias=true"]),
    (SweepRecipe, [*GLUE, "distillation.alpha=0.5", "distillation.teacher=t"]),
    (SweepRecipe, [*GLUE, "distillation.alpha=0.5", "tasks.mrpc.distillation.teacher=t"]),
    (SweepRecipe, [*STAGES, "distillation.alpha=0.5", "stages.small.distillation.cache=c"]),
    (SweepRecipe, ["data.train=hub:owner/name", "data.split=validation", "data.revision=abc"]),
    (SweepRecipe, [*OWN, "data.separator=;"]),
    (SweepRecipe, [*OWN, "data.kind=labels", "data.separator=;"]),
]


def ids(case: Any) -> str:
    return " ".join(case[1])


@pytest.mark.parametrize("case", UNREAD, ids=ids)
def test_a_key_without_effect_is_refused_by_its_name(case: Any) -> None:
    kind, overrides, key = case
    with pytest.raises(RecipeError) as raised:
        load_recipe(kind, None, overrides)
    lines = str(raised.value).splitlines()[1:]
    assert any(key in line.partition(":")[0] for line in lines)


@pytest.mark.parametrize("case", READ, ids=ids)
def test_a_key_with_an_effect_is_not_refused(case: Any) -> None:
    load_recipe(case[0], None, case[1])


@pytest.mark.parametrize("kind", [CorpusRecipe, PretrainRecipe, FinetuneRecipe], ids=str)
def test_the_recipe_of_an_older_run_may_have_such_keys(kind: type[Section], tmp_path: Path) -> None:
    values: dict[str, Any] = {"on_spike": "rollback", "distillation": {"alpha": 0.5}}
    if kind is CorpusRecipe:
        vocabulary = {"path": "v", "lowercase": False}
        values = {
            "sources": {"a": {"path": "a.txt"}},
            "vocabulary": vocabulary,
            "language": "klingon",
        }
    elif kind is PretrainRecipe:
        values["model"] = {"pad_token_id": 3}
    recipe = kind.model_validate(values)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(kind, tmp_path / "recipe.yaml", stored=True) == recipe


# Sources

KINDS = ["hub", "python-docs", "parquet", "jsonl", "txt", "wiki"]
OF_KIND = {
    "config": ({"hub"}, "c"),
    "revision": ({"hub"}, "r"),
    "split": ({"hub"}, "s"),
    "streaming": ({"hub"}, False),
    "text": ({"hub", "parquet", "jsonl"}, "body"),
    "txt_documents": ({"txt"}, "blank-lines"),
}


@given(
    keys=st.sets(st.sampled_from([*OF_KIND, "weight", "licence"])),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
)
def test_keys_of_one_kind_of_source_are_refused_at_another(keys: set[str], kinds: set[str]) -> None:
    others = {"weight": 2.0, "licence": "CC0"}
    values: dict[str, Any] = {
        key: OF_KIND[key][1] if key in OF_KIND else others[key] for key in keys
    }
    source = Source(path="p", **values)
    unread = {key for key in keys if key in OF_KIND and not kinds & OF_KIND[key][0]}
    if not unread:
        check_keys("mine", source, kinds)
        return
    with pytest.raises(RecipeError) as raised:
        check_keys("mine", source, kinds)
    advice = str(raised.value).rpartition(": ")[2].split()
    assert {text.partition("=")[0] for text in advice} == {f"sources.mine.{key}" for key in unread}
    # The advice is a list of overrides that mend the recipe.
    mended = load_recipe(CorpusRecipe, None, ["sources.mine.path=p", *advice])
    check_keys("mine", mended.sources["mine"], kinds)


# Languages


@pytest.mark.parametrize("code", ["en", "de", "zh", "zh-hans", "yue", "ceb", "th", "pt-br"])
def test_codes_of_languages_are_known(code: str) -> None:
    assert unknown_language(code) is None


@pytest.mark.parametrize(
    ("code", "meant"), [("klingon", ""), ("EN", "en"), ("zh_hans", "zh-hans"), ("", ""), ("xx", "")]
)
def test_another_text_is_no_language(code: str, meant: str) -> None:
    reason = unknown_language(code)
    assert reason is not None and repr(code) in reason
    assert not meant or f"did you mean {meant}?" in reason


def test_each_language_is_taken_by_the_splitter() -> None:
    from sentencex import segment

    for code in LANGUAGES:
        assert segment(code, "One. Two. 三。")
