"""Recipes: what is wrong is refused, all of it at once; what is right survives a round trip."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from sqzb.errors import RecipeError
from sqzb.model.config import SqueezeBertConfig
from sqzb.recipe import (
    CorpusRecipe,
    Distillation,
    FinetuneRecipe,
    MaskedLMDistillation,
    Optimizer,
    PretrainRecipe,
    Section,
    Source,
    SweepRecipe,
    Vocabulary,
    dump_recipe,
    load_recipe,
)
from sqzb.recipe.reading import _override
from sqzb.recipe.reference import keys
from sqzb.recipe.sweeps import Grid, Settings, Stage

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SOURCES = {"sources": {"a": {"path": "text"}}}
# The least that each kind needs, and where its sections are.
KINDS: list[tuple[type[Section], dict[str, Any], dict[str, type[BaseModel]]]] = [
    (CorpusRecipe, SOURCES, {"": CorpusRecipe, "sources.a.": Source, "vocabulary.": Vocabulary}),
    (
        PretrainRecipe,
        {"model": {}},
        {
            "": PretrainRecipe,
            "model.": SqueezeBertConfig,
            "optimizer.": Optimizer,
            "distillation.": MaskedLMDistillation,
        },
    ),
    (FinetuneRecipe, {}, {"": FinetuneRecipe}),
    (
        SweepRecipe,
        {},
        {
            "": SweepRecipe,
            "sweep.": Grid,
            "tasks.rte.": Settings,
            "stages.a.": Stage,
            "stages.a.distillation.": Distillation,
        },
    ),
]
ONE_OF_EACH: list[Section] = [
    CorpusRecipe(sources={"a": Source(path="x")}),
    PretrainRecipe(model=SqueezeBertConfig()),
    FinetuneRecipe(),
]


def load(kind: type[Section], text: str, *overrides: str, stored: bool = False) -> Section:
    """Load from a file that holds `text`."""
    path = Path(f"{load.folder}/recipe.yaml")  # type: ignore[attr-defined]
    path.write_text(text, encoding="utf-8")
    return load_recipe(kind, path, overrides, stored)


def refusal(kind: type[Section], text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(kind, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    load.folder = tmp_path_factory.mktemp("recipes")  # type: ignore[attr-defined]


def kind_of(values: dict[str, Any]) -> type[Section]:
    if "sources" in values:
        return CorpusRecipe
    return PretrainRecipe if "corpus" in values else SweepRecipe


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_load(path: Path) -> None:
    load_recipe(kind_of(yaml.safe_load(path.read_text())), path)


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED


@pytest.mark.parametrize(("kind", "needed", "sections"), KINDS)
def test_every_misspelt_key_is_refused_with_the_nearest(
    kind: type[Section], needed: dict[str, Any], sections: dict[str, type[BaseModel]]
) -> None:
    names = [
        (prefix, name) for prefix, section in sections.items() for name in section.model_fields
    ]
    message = refusal(
        kind, yaml.safe_dump(needed), *(f"{prefix}{name}{name[-1]}=1" for prefix, name in names)
    )
    for prefix, name in names:
        assert f"\n  {prefix}{name}{name[-1]}: unknown key; did you mean {name}?" in message


@pytest.mark.parametrize("kind", [FinetuneRecipe, SweepRecipe])
def test_a_removed_key_is_dropped_where_it_was_off_and_else_refused(kind: type[Section]) -> None:
    written = {"distillation": {"hidden": 0.0, "attention": 0, "alpha": 0.5}}
    assert kind.model_validate(written) == kind.model_validate({"distillation": {"alpha": 0.5}})
    message = refusal(
        kind, "distillation: {hidden: 0.5, attention: 0.0}", "distillation.attention=1"
    )
    for key in ("hidden", "attention"):
        assert f"\n  distillation.{key}: no longer supported" in message


def test_an_unlike_key_is_refused_with_all_names() -> None:
    message = refusal(FinetuneRecipe, "zzzzzz: 1")
    assert all(name in message for name in FinetuneRecipe.model_fields)


@pytest.mark.parametrize(("kind", "needed", "sections"), KINDS)
def test_every_wrong_type_is_refused_in_one_error(
    kind: type[Section], needed: dict[str, Any], sections: dict[str, type[BaseModel]]
) -> None:
    outside = list(kind.model_fields)
    inside = [
        f"{prefix}{name}"
        for prefix, section in sections.items()
        if prefix
        for name in section.model_fields
    ]
    for names in filter(None, (outside, inside)):
        message = refusal(kind, yaml.safe_dump(needed), *(f"{name}=[[]]" for name in names))
        for name in names:
            assert re.search(rf"\n  {name}[.:]", message)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (FinetuneRecipe, "epochs: '10'"),
        (FinetuneRecipe, "epochs: 2.0"),
        (FinetuneRecipe, "epochs: true"),
        (FinetuneRecipe, "from_scratch: 1"),
        (FinetuneRecipe, "lr: '1e-3'"),
        (FinetuneRecipe, "lr: .inf"),
        (FinetuneRecipe, "lr: .nan"),
        (FinetuneRecipe, "lr: 1e999"),
        (FinetuneRecipe, "lr: 0"),
        (FinetuneRecipe, "output: 5"),
        (FinetuneRecipe, f"seed: {2**64}"),
        (FinetuneRecipe, "seed: -1"),
    ],
)
def test_values_are_not_bent_to_fit(kind: type[Section], line: str) -> None:
    assert f"\n  {line.partition(':')[0]}:" in refusal(kind, line)


def test_everything_wrong_is_in_one_error() -> None:
    message = refusal(
        PretrainRecipe,
        """
        global_batch: 100
        micro_batch: 32
        sequence_length: 128
        max_predictions: 126
        start_from: runs/one
        model:
          {hidden_size: 30, num_attention_heads: 4, max_position_embeddings: 64,
           intermediate_size: 6}
        optimizer: {betas: [0.9, 1.0], lr: fast, weight_dekay: 0.1}
        precision: fp16
        """,
        "log_every=0",
        "nonsense",
    )
    for expected in [
        "nonsense: an override is KEY=VALUE",
        "log_every: should be greater than or equal to 1, not 0",
        "precision: should be 'fp32', 'bf16' or 'auto', not 'fp16'",
        "optimizer.lr: should be a valid number, not 'fast'",
        "optimizer.weight_dekay: unknown key; did you mean weight_decay?",
        "micro_batch: 32 does not divide global_batch = 100",
        "max_predictions: 126 does not leave room for special tokens",
        "model: give either model (from scratch) or start_from, one of the two",
        "sequence_length: 128 is over the model's 64 positions",
        "optimizer.betas: 1.0 is not in [0, 1)",
        "model.num_attention_heads: 4 does not divide hidden_size = 30",
        "model.q_groups: 4 does not divide hidden_size = 30",
        "model.output_groups: 4 does not divide intermediate_size = 6",
    ]:
        assert f"\n  {expected}" in message


@pytest.mark.parametrize("value", ["0", "many", "1.5", "true", "null", "[auto]"])
def test_a_micro_batch_is_a_number_or_auto(value: str) -> None:
    assert load_recipe(PretrainRecipe, None, ["model={}", "micro_batch=auto"]).micro_batch == "auto"
    message = refusal(PretrainRecipe, "model: {}", f"micro_batch={value}")
    assert message.count("micro_batch") == 1
    assert "\n  micro_batch: should be a whole number, 1 or more, or auto, not " in message


def test_nothing_is_said_of_the_default_of_a_wrong_value() -> None:
    message = refusal(PretrainRecipe, "{model: {}, global_batch: many, micro_batch: 7}")
    assert "global_batch: should be" in message and "divide" not in message


def test_one_wrong_source_does_not_hide_what_is_wrong_with_another() -> None:
    message = refusal(CorpusRecipe, "sources: {path: 3, b: {}}")
    assert "\n  sources.path: " in message and "\n  sources.b.path: missing" in message


@pytest.mark.parametrize("text", ["{lr: 1, lr: 2}", "{lr: 1, 'lr': 1}"])
def test_duplicate_keys_are_refused(text: str) -> None:
    assert "lr is set twice" in refusal(FinetuneRecipe, text)
    assert "lr is set twice" in refusal(PretrainRecipe, f"{{model: {{}}, optimizer: {text}}}")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no keys"),
        (b"- a\n- b\n", "holds no keys"),
        (b"a: [", "is not valid YAML"),
        (b"a: \xff", "UTF-8"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(str(path)) + ".*" + complaint):
        load_recipe(FinetuneRecipe, path)


def test_missing_recipe_and_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe .*absent"):
        load_recipe(FinetuneRecipe, tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(FinetuneRecipe, tmp_path)


@given(
    st.floats(min_value=1e-300, max_value=1e300),
    st.sampled_from(["{!r}", "{:e}", "{:E}", "{:.0e}", "{:g}", "{:.3f}1", "+{!r}"]),
)
@example(1e-3, "{:.0e}")
@example(2.5e-3, "{!r}")
def test_numbers_in_any_notation(value: float, notation: str) -> None:
    text = notation.format(value)
    for written in {text, text.replace("e-0", "e-").replace("e+", "e")}:
        recipe = load_recipe(FinetuneRecipe, None, [f"lr={written}"])
        assert recipe.lr == float(written)


@pytest.mark.parametrize("text", ["12e4ab", "1e5x", "3e5-b", "0x", "e5", "12e"])
def test_text_that_starts_like_a_number_is_text(text: str) -> None:
    recipe = load(CorpusRecipe, f"sources: {{a: {{path: x, revision: {text}}}}}")
    assert isinstance(recipe, CorpusRecipe) and recipe.sources["a"].revision == text


@pytest.mark.parametrize("recipe", ONE_OF_EACH, ids=lambda recipe: type(recipe).__name__)
def test_overrides_reach_every_key(recipe: Section) -> None:
    values = recipe.model_dump()
    if isinstance(recipe, PretrainRecipe):
        del values["model"]["id2label"]  # keys that are numbers
    overrides = []
    for key, value in leaves(values):
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n")
        as_is = value if isinstance(value, str) else text.removesuffix("\n...")
        overrides.append(f"{key}={as_is}")
    assert load_recipe(type(recipe), None, overrides) == recipe


TEXT_KEYS: list[tuple[type[Section], str]] = [
    (PretrainRecipe, "corpus"),
    (PretrainRecipe, "output"),
    (PretrainRecipe, "start_from"),
    (CorpusRecipe, "sources.a.path"),
    (CorpusRecipe, "vocabulary.path"),
    (SweepRecipe, "model"),
    (SweepRecipe, "data.train"),
    (SweepRecipe, "data.label"),
    (SweepRecipe, "tasks.rte.model"),
    (SweepRecipe, "stages.a.teacher.mrpc"),
    (SweepRecipe, "distillation.teacher"),
]


def value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def overridden(kind: type[Section], key: str, text: str) -> Any:
    values: dict[str, Any] = {}
    assert _override(kind, values, f"{key}={text}") == []
    return value_at(values, key)


@given(
    st.sampled_from(TEXT_KEYS),
    st.text(min_size=1)
    | st.sampled_from(
        ["corp #2", "2024-05-01", "1e3", "007", "yes", "~", "a: b", "& x", "[/x]y", "- a", "12:30"]
    ),
)
def test_a_key_that_takes_text_takes_it_as_it_is(
    case: tuple[type[Section], str], text: str
) -> None:
    is_marked = text == "null" or text[0] + text[-1] in ("''", '""', "[]", "{}")
    hypothesis.assume(not is_marked or len(text) == 1)
    assert overridden(*case, text) == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model", "null", None),
        ("model", "", None),
        ("model", "'null'", "null"),
        ("model", '"a #2"', "a #2"),
        ("data.train", "[a, 'b #2']", ["a", "b #2"]),
        ("data.train", "[a", "[a"),
        ("sweep.lr", "[1e-5, 3e-5]", [1e-5, 3e-5]),
        ("stages.a.teacher", "{mrpc: a}", {"mrpc": "a"}),
        ("epochs", "3", 3),
    ],
)
def test_a_marked_value_and_that_of_another_key_is_yaml(key: str, text: str, value: Any) -> None:
    assert overridden(SweepRecipe, key, text) == value


@pytest.mark.parametrize("override", ["epochs=10 # ten", "epochs=#", "class_weights=balanced # x"])
def test_a_comment_in_an_override_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="is not a valid YAML value"):
        load_recipe(FinetuneRecipe, None, [override])


def test_a_date_in_a_recipe_file_is_refused_where_text_is_due() -> None:
    assert "corpus: should be a valid string" in refusal(
        PretrainRecipe, "{corpus: 2024-05-01, model: {}}"
    )


def paths_in(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys whose type is a local path, or a list of them."""
    for key, field in keys(kind):
        is_path = re.search("at_home|_listed", f"{field.annotation} {field.metadata}")
        if is_path and key != "stages.NAME.teacher":  # a text there is the name of a stage
            yield key.replace("NAME", "a")
    if kind is SweepRecipe:
        yield "distillation.teacher"  # by a validator of its own


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/my/home")
    kinds: tuple[type[Section], ...] = (CorpusRecipe, PretrainRecipe, SweepRecipe)
    found = []
    for kind in kinds:
        needed = {CorpusRecipe: ["sources.a.path=x"], PretrainRecipe: ["model={}"]}.get(kind, [])
        for key in paths_in(kind):
            others = [] if key != "start_from" else ["model=null"]
            others += ["data.train=t"] if key.startswith("data.") else []
            if key.startswith("distillation.") and not key.endswith(".teacher"):
                others.append("distillation.teacher=t")
            recipe = load_recipe(kind, None, [*needed, *others, f"{key}=~/x"])
            value = value_at(recipe.model_dump(), key)
            assert value == "/my/home/x" or list(value) == ["/my/home/x"], key
            found.append(key)
    for key in ("output", "corpus", "sources.a.path", "vocabulary.path", "model", "start_from"):
        assert key in found
    for key in ("glue_dir", "distillation.unlabelled", "distillation.cache", "data.validation"):
        assert key in found
    teachers = load_recipe(SweepRecipe, None, ["task=mrpc", "stages.a.teacher={mrpc: [~/t, u]}"])
    assert teachers.stages["a"].teacher == {"mrpc": ["/my/home/t", "u"]}


def test_overrides_win_over_the_file_and_given_values_over_both() -> None:
    path = Path(f"{load.folder}/given.yaml")  # type: ignore[attr-defined]
    path.write_text("{lr: 1, epochs: 2, batch: 3}")
    recipe = load_recipe(FinetuneRecipe, path, ["epochs=20", "batch=30"], batch=300, output=None)
    assert (recipe.lr, recipe.epochs, recipe.batch, recipe.output) == (1, 20, 300, None)


def test_an_override_changes_one_place_of_an_aliased_mapping() -> None:
    recipe = load(CorpusRecipe, "sources: {a: &a {path: x}, b: *a}", "sources.a.path=y")
    assert isinstance(recipe, CorpusRecipe) and (
        recipe.sources["a"].path,
        recipe.sources["b"].path,
    ) == ("y", "x")


@pytest.mark.parametrize("override", ["lr", "=1", "", "lr.deep=1", "lr=[", "lr=2020-13-45"])
def test_overrides_that_cannot_be_used(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(FinetuneRecipe, None, [override])
    assert override.partition("=")[0].partition(".")[0] in str(caught.value)


# Not the line ends of other scripts, which PyYAML does not write faithfully.
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029")
like_other_types = st.sampled_from(["1e5", "null", "12e4", "no", "1:30", "~", "2020-01-01", "#"])
words = st.text(letters, min_size=1, max_size=20) | like_other_types
real = st.floats(1e-30, 1e30)
recipes: list[st.SearchStrategy[Section]] = [
    st.builds(
        CorpusRecipe,
        output=words,
        sources=st.dictionaries(
            words,
            st.builds(
                Source,
                path=words,
                revision=st.none() | words,
                text=words,
                licence=st.none() | words,
                streaming=st.booleans(),
                wiki_leftovers=st.booleans(),
                weight=st.floats(0, 1000, exclude_min=True),
                sentences_per_document=st.none() | st.integers(2, 9**20),
            ),
            min_size=1,
        ),
        vocabulary=st.builds(Vocabulary, path=st.none() | words, lowercase=st.booleans()),
        sequence_lengths=st.lists(st.integers(8, 9999), min_size=1),
        heldout=st.floats(0, 1, exclude_max=True),
        near_duplicates=st.none() | st.floats(0.5, 1, exclude_max=True),
        max_sentence_characters=st.integers(100, 10**9),
        max_bad_documents=st.integers(0, 10**9),
        english_only=st.booleans(),
        drop_duplicates=st.booleans(),
        seed=st.integers(0, 2**64 - 1),
    ),
    st.builds(
        PretrainRecipe,
        output=st.none() | words,
        model=st.builds(
            SqueezeBertConfig,
            id2label=st.lists(words, min_size=1, unique=True).map(
                lambda labels: dict(enumerate(labels))
            ),
            layer_norm_eps=st.floats(1e-30, 0.5),
            vocab_size=st.integers(6, 10**7),
        ),
        optimizer=st.builds(
            Optimizer,
            lr=real,
            betas=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
            decay_power=real,
            eps=real,
        ),
        distillation=st.builds(
            MaskedLMDistillation, teacher=st.none() | words, temperature=real, alpha=st.floats(0, 1)
        ),
        sop=st.booleans(),
        evaluate_sequences=st.none() | st.integers(1, 10**9),
    ),
    st.builds(
        FinetuneRecipe, task=st.none() | words, model=words, lr=real, epochs=st.integers(1, 10**9)
    ),
]


@given(st.one_of(recipes))
def test_dump_and_load_is_a_round_trip(recipe: Section) -> None:
    assert load(type(recipe), dump_recipe(recipe), stored=True) == recipe


ODD_YAML = r"""
[] ;; {} ;; null ;; ~ ;; true ;; .nan ;; .inf ;; 1e999 ;; -1 ;; 0 ;; 2020-13-45 ;; 2020-01-01 ;;
1:30 ;; 0b1 ;; 0o7 ;; 0x1g ;; 1e5x ;; [[[]]] ;; [1,x] ;; | ;; > ;; ? ;; % ;; @ ;; ` ;;
{a: {b: {c: d}}} ;; {1: 2} ;; {null: 1} ;; {1.5: 1} ;; {[a]: 1} ;; {2020-01-01: 1} ;;
{<<: {a: 1}} ;; &a [*a] ;; &a {x: *a} ;; *a ;; !!int ;; !!int foo ;;
!!float ;; !!timestamp x ;; !!bool x ;; !!map x ;; !!map [1] ;; !!set {a} ;; !!binary x ;;
!!python/object:os.system ;; "\ud800" ;; "\0"
"""
odd_yaml = st.sampled_from([value.strip() for value in ODD_YAML.split(";;")])


WRITTEN = [(type(recipe), dump_recipe(recipe)) for recipe in ONE_OF_EACH]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[type[Section], str]:
    """A recipe's text with some of its lines replaced, moved or cut."""
    kind, text = draw(st.sampled_from(WRITTEN))
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key, colon, value = lines[at].partition(":")
        how = draw(st.integers(0, 5))
        lines[at] = [
            f"{key}: {draw(odd_yaml)}",
            f"{key}{colon}{value[: len(value) // 2]}",
            f"{draw(odd_yaml)}{colon}{value}",
            f"  {lines[at]}",
            draw(st.text(max_size=10)),
            f"{key}: {draw(st.integers() | st.floats())}",
        ][how]
    return kind, "\n".join(lines)


@given(damaged())
@example((FinetuneRecipe, "lr: " + "[" * 1500))
@example((FinetuneRecipe, "lr: " + "9" * 5000))
@example((CorpusRecipe, "sequence_lengths: [128, x]"))
@example((PretrainRecipe, "{model: {id2label: {a: b}}, optimizer: {betas: [a], null: 2}}"))
def test_damaged_recipes_load_or_are_refused(case: tuple[type[Section], str]) -> None:
    kind, text = case
    try:
        assert isinstance(load(kind, text), kind)
    except RecipeError as error:
        assert "recipe.yaml" in str(error)
