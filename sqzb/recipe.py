"""Recipes: strict YAML files plus `key=value` overrides, checked whole before anything heavy is loaded."""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    field_validator,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sqzb.errors import RecipeError
from sqzb.model.config import Problem, SqueezeBertConfig

Masking = Literal["token", "word", "ngram"]


def _size_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("size_or_auto", "Input should be a whole number, 1 or more, or auto")


# One error for both kinds, where pydantic has one for each kind of a union.
MicroBatchSize = Annotated[int | Literal["auto"], PlainValidator(_size_or_auto)]


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are refused, nothing is converted but whole numbers to real."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def problems(self) -> list[Problem]:
        """Values that are right alone and impossible together: (key, what is wrong); empty if there is none."""
        return []


class Source(Section):
    """Where documents come from."""

    path: str = Field("", description="local file, folder or glob; a Hub id (owner/name); python-docs")
    licence: str | None = Field(None, description="under which the text may be used; it stands in the manifest")
    text: str = Field("text", description="the column that holds the text, for parquet, jsonl and the Hub")
    config: str | None = Field(None, description="the configuration of a Hub data set")
    revision: str | None = Field(None, description="the commit of a Hub data set")
    split: str = Field("train", description="the split of a Hub data set")
    streaming: bool = Field(True, description="read the Hub as a stream; false: download first, to datasets' cache")
    txt_documents: Literal["file", "blank-lines"] = Field("file", description="what parts documents in txt files")
    sentences_per_document: int | None = Field(
        None, ge=2, description="rows or lines are sentences without boundaries: so many of them make a document"
    )
    wiki_leftovers: bool = Field(False, description="remove what extractors leave of wiki templates, tags and links")
    weight: float = Field(
        1.0, gt=0, le=1000, description="how often each document is taken for training; 0.5: half of them"
    )

    def problems(self) -> list[Problem]:
        return [] if self.path else [("path", "missing: a local file, folder or glob, or a Hub id")]


class Vocabulary(Section):
    """A vocabulary to load (`path`: tokenizer.json, vocab.txt or a folder or Hub id with one), or to train."""

    path: str | None = None
    size: int = Field(30522, ge=100)
    lowercase: bool = True
    sample_characters: int = Field(50_000_000, ge=1, description="so much text, from all over, is read to train it")


class CorpusRecipe(Section):
    """sqzb prepare-corpus."""

    output: str = Field("data/corpus", min_length=1)
    sources: dict[str, Source] = {}
    vocabulary: Vocabulary = Vocabulary()
    sequence_lengths: list[int] = Field([128, 512], min_length=1)
    language: str = Field("en", description="for the splitting into sentences")
    short_seq_prob: float = Field(0.1, ge=0, le=1, description="chance that a chunk aims at a shorter length")
    heldout: float = Field(0.005, ge=0, lt=1, description="share of documents kept apart for evaluation")
    min_characters: int = Field(200, ge=1, description="shorter documents are dropped")
    max_sentence_characters: int = Field(10_000, ge=100, description="longer stretches without a sentence end go")
    english_only: bool = Field(False, description="drop documents with less than two of eight English stop words")
    drop_duplicates: bool = Field(True, description="of equal documents, the first is taken")
    near_duplicates: float | None = Field(
        None, ge=0.5, lt=1, description="of documents that share so much of their word 5-grams, the first is taken"
    )
    max_bad_documents: int = Field(0, ge=0, description="so many that cannot be read are skipped; one more is an error")
    seed: int = Field(0, ge=0, lt=2**64)

    @field_validator("sources", mode="before")
    @classmethod
    def _without_null(cls, sources: Any) -> Any:
        """`sources.NAME=null` takes a source out of a recipe."""
        return {name: s for name, s in sources.items() if s is not None} if isinstance(sources, dict) else sources

    def problems(self) -> list[Problem]:
        missing: list[Problem] = [] if self.sources else [("sources", "missing: where documents come from")]
        return missing + [
            ("sequence_lengths", f"{length} is too short: three places are special tokens, and 8 is the least")
            for length in self.sequence_lengths
            if length < 8
        ]


class Optimizer(Section):
    """LAMB and its rate: linear warmup, then polynomial decay to zero."""

    lr: float = Field(2.5e-3, gt=0, description="peak rate")
    warmup: float = Field(0.28, ge=0, lt=1, description="share of the steps")
    decay_power: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), strict=False)
    eps: float = Field(1e-6, gt=0)
    clip_norm: float = Field(1.0, gt=0, description="the gradient's global norm is cut to this")

    def problems(self) -> list[Problem]:
        return [("betas", f"{beta} is not in [0, 1)") for beta in self.betas if not 0 <= beta < 1]


class TrainingRecipe(Section):
    """What pretraining and finetuning share.

    may_change: the keys that may have another value when a run goes on; length: the one that --extend allows.
    """

    may_change: ClassVar[frozenset[str]] = frozenset(
        [
            *("output", "compile", "kernels", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every"),
            *("max_skipped_steps", "spike_factor", "on_spike"),
        ]
    )
    length: ClassVar[str]

    output: str | None = Field(None, description="the run folder")
    seed: int = Field(0, ge=0, lt=2**64)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = Field(False, description="torch.compile: slower to start, faster to run")
    kernels: bool = Field(False, description="Triton's, on a GPU: less memory; their speed has not been measured yet")
    log_every: int = Field(10, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1, description="the newest")
    keep_every: int | None = Field(None, ge=1, description="and those of every so many steps; null: no others")
    max_skipped_steps: int = Field(10, ge=1, description="so many in a row that are not finite end the run")
    spike_factor: float | None = Field(None, gt=1, description="a loss over so many times its median is a spike")
    on_spike: Literal["warn", "rollback"] = Field("warn", description="rollback: to the last checkpoint, and around it")


class PretrainRecipe(TrainingRecipe):
    """sqzb pretrain."""

    may_change = TrainingRecipe.may_change | {"corpus", "micro_batch", "evaluate_every", "evaluate_sequences"}
    length = "steps"

    corpus: str = Field("data/corpus", min_length=1, description="a folder written by prepare-corpus")
    sequence_length: int = Field(128, ge=8)
    max_predictions: int = Field(20, ge=1, description="masked positions in a sequence, at most")
    masking_rate: float = Field(0.15, gt=0, lt=1)
    masking: Masking = Field("token", description="what is masked together: ngram is 1 to 3 whole words, as ALBERT's")
    sop: bool = Field(True, description="sentence order prediction beside the masked language model")
    start_from: str | None = Field(None, description="a run folder, a saved model or a Hub id to go on from")
    model: SqueezeBertConfig | None = Field(None, description="the sizes of a model to train from scratch")
    steps: int = Field(56_000, ge=1)
    global_batch: int = Field(8192, ge=1, description="sequences in a step")
    micro_batch: MicroBatchSize = Field(
        32, description="sequences that a process computes at once; auto: as many as fit, found at the first start"
    )
    optimizer: Optimizer = Optimizer()
    evaluate_every: int = Field(1000, ge=1, description="steps")
    evaluate_sequences: int | None = Field(4096, ge=1, description="held-out sequences to evaluate on; null: all")
    checkpoint_every: int = Field(1000, ge=1, description="steps")

    def problems(self) -> list[Problem]:
        found = []
        if isinstance(self.micro_batch, int) and self.global_batch % self.micro_batch:
            found.append(("micro_batch", f"{self.micro_batch} does not divide global_batch = {self.global_batch}"))
        if self.max_predictions > self.sequence_length - 3:
            found.append(("max_predictions", f"{self.max_predictions} does not leave room for special tokens"))
        if (self.model is None) == (self.start_from is None):
            found.append(("model", "give either model (from scratch) or start_from, one of the two"))
        if self.model is not None and self.sequence_length > self.model.max_position_embeddings:
            positions = self.model.max_position_embeddings
            found.append(("sequence_length", f"{self.sequence_length} is over the model's {positions} positions"))
        return found


class FinetuneRecipe(TrainingRecipe):
    """sqzb finetune."""

    length = "epochs"

    task: str | None = None
    model: str = Field("squeezebert/squeezebert-uncased", min_length=1, description="a run, a saved model or a Hub id")
    from_scratch: bool = Field(False, description="take the model's sizes and vocabulary, but random weights")
    epochs: int = Field(10, ge=1)
    lr: float = Field(3e-5, gt=0)
    batch: int = Field(16, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    max_length: int = Field(128, ge=8, description="tokens; longer examples are cut")
    dropout: float | None = Field(None, ge=0, lt=1, description="null: the model's own")
    keep_checkpoints: int = Field(1, ge=1, description="the newest")
    checkpoint_every: int | None = Field(None, ge=1, description="steps; null: at the end of each epoch")
    evaluate_every: int | None = Field(None, ge=1, description="steps; null: at the end of each epoch")
    keep_best: bool = Field(
        False,
        description="final/ has the best validation score of all evaluations, the first of equals; false: the last",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="end after so many evaluations in a row without a better score; null: never"
    )

    def problems(self) -> list[Problem]:
        if self.early_stopping is None or self.keep_best:
            return []
        return [("early_stopping", "ends with a model that is not the best one: set keep_best=true too")]


class _Part(Section):
    """Some keys of FinetuneRecipe: only those that were given are read and written."""

    @model_serializer(mode="wrap")
    def _given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


if TYPE_CHECKING:

    class Settings(_Part): ...

    class Grid(_Part): ...

else:  # by the rules of FinetuneRecipe's own fields, whatever these are

    def _values(field: FieldInfo) -> Any:
        """A list of what the field takes."""
        rule = (field.annotation, Field(), *field.metadata)
        return list[Annotated[rule]]

    _FIELDS = {name: field for name, field in FinetuneRecipe.model_fields.items() if name not in ("task", "output")}
    Settings = create_model(
        "Settings", __base__=_Part, **{name: (field.annotation, copy.copy(field)) for name, field in _FIELDS.items()}
    )
    Grid = create_model(
        "Grid",
        __base__=_Part,
        **{name: (_values(field), Field([], min_length=1)) for name, field in _FIELDS.items()},
    )


class SweepRecipe(FinetuneRecipe):
    """sqzb finetune as it may be given: beside one run's keys, those that make many runs of them.

    `task` may be several with commas between, or all.
    """

    sweep: Grid = Field(Grid(), description="lists of values to try, by key; every combination is a run")
    tasks: dict[str, Settings] = Field({}, description="keys that have another value for a task, by task")

    def grid(self) -> dict[str, list[Any]]:
        """The values to try by key, the seeds last."""
        values = self.sweep.model_dump()
        return dict(sorted(values.items(), key=lambda item: item[0] == "seed"))

    def recipes(self, task: str | None) -> list[FinetuneRecipe]:
        """Of a task, one run's recipe for each combination of the grid's values; the seed turns fastest.

        A task's own settings stand over the recipe's keys, and the grid's values over both.
        """
        own = self.tasks[task].model_dump() if task in self.tasks else {}
        values = self.model_dump(exclude={"sweep", "tasks"}) | own | {"task": task}
        grid = self.grid()
        return [
            FinetuneRecipe.model_validate(values | dict(zip(grid, combination, strict=True)))
            for combination in product(*grid.values())
        ]

    def problems(self) -> list[Problem]:
        twice = [
            (f"sweep.{key}", f"{value} stands twice")
            for key, values in self.grid().items()
            for index, value in enumerate(values)
            if value in values[:index]
        ]
        of_runs = [found for task in (None, *self.tasks) for run in self.recipes(task) for found in run.problems()]
        return [*twice, *dict.fromkeys(of_runs)]


Recipe = TypeVar("Recipe", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: `1e-3` is one. Keys that stand twice are refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # else it is refused below
        keys = [self.construct_object(key, deep=True) for key, _ in pairs]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(sorted(twice))} stands twice", node.start_mark
            )
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """Puts text that the loader would take for a number into quotes."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def load_recipe(kind: type[Recipe], path: Path | None, overrides: Sequence[str] = (), **given: Any) -> Recipe:
    """Read a recipe, lay the `KEY=VALUE` overrides over it and then what was `given` (unless None), and check it.

    Keys reach inside with dots: `optimizer.lr=1e-3`. What is given in these two ways for all runs of a sweep also
    stands over what the file has in `sweep` and `tasks`. Raises RecipeError listing every problem.
    """
    values = _read(path) if path is not None else {}
    if kind is SweepRecipe:
        named = {text.partition("=")[0] for text in overrides} | {key for key in given if given[key] is not None}
        values = _without(values, named)
    problems = [problem for text in overrides for problem in _override(values, text)]
    values |= {key: value for key, value in given.items() if value is not None}
    recipe, found = _validate(kind, values)
    problems += found
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RecipeError(f"The recipe {path if path is not None else 'given by KEY=VALUE'} cannot be used:{listed}")
    return recipe


def dump_recipe(recipe: Section) -> str:
    """The recipe as YAML, every default written out."""
    return yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            f"There is no recipe {path}. Recipes that come with sqzb are in the folder recipes/."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read ({error}). Give a YAML file in UTF-8.") from error
    try:
        values = _parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(f"The recipe {path} holds no keys. A recipe is a list of `key: value` lines.")
    return values


def _parse(text: str) -> Any:
    """The value of a YAML text; yaml.YAMLError if it has none."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # what int(), datetime and the stack raise passes through PyYAML: 2020-13-45, [[[[...
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def _without(values: dict[str, Any], named: Set[str]) -> dict[str, Any]:
    """A sweep's values, of whatever form, less the `named` keys in its grid and in the tasks' settings."""

    def less(part: Any) -> Any:
        return {key: part[key] for key in part if key not in named} if isinstance(part, dict) else part

    changed = dict(values)
    if "sweep" in values:
        changed["sweep"] = less(values["sweep"])
    if isinstance(values.get("tasks"), dict):
        changed["tasks"] = {task: less(settings) for task, settings in values["tasks"].items()}
    return changed


def _override(values: dict[str, Any], text: str) -> list[str]:
    """Set one KEY=VALUE in `values`; the problem, if there is one."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        return [f"{text}: an override is KEY=VALUE, such as optimizer.lr=1e-3"]
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        inside = {} if inner.get(parent) is None else inner[parent]
        if not isinstance(inside, dict):
            return [f"{key}: {parent} has no keys inside"]
        inner[parent] = dict(inside)  # a copy: a YAML alias may put the same mapping elsewhere too
        inner = inner[parent]
    try:
        inner[last] = _parse(value)
    except yaml.YAMLError:
        return [f"{key}: {value!r} is no YAML value; put it into quotes"]
    return []


def _validate(kind: type[Recipe], values: dict[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe and its problems.

    Every key has a default, so where single values are wrong the rest is still checked with these left out; what
    is then said of a key that was left out would be about its default, and is dropped.
    """
    try:
        recipe = kind.model_validate(values)
        return recipe, list(_combined(recipe))
    except ValidationError as error:
        details = error.errors()
    problems = [_explain(kind, dict(detail)) for detail in details]
    removed = {_remove(values, detail["loc"]) for detail in details}
    try:
        recipe = kind.model_validate(values)
    except ValidationError:  # a key that is no text, such as null, cannot be found again by its place
        return kind(), problems
    return recipe, problems + list(_combined(recipe, removed))


def _combined(section: Section | SqueezeBertConfig, removed: Set[str] = frozenset(), prefix: str = "") -> Iterator[str]:
    """What is impossible together, less what is said of a key in `removed`."""
    for field, problem in section.problems():
        if not any(f"{prefix}{word}" in removed for word in re.findall(r"\w+", f"{field} {problem}")):
            yield f"{prefix}{field}: {problem}"
    for name in type(section).model_fields:
        inner = getattr(section, name)
        sections = inner if isinstance(inner, dict) else {None: inner}
        for key, value in sections.items():
            if isinstance(value, Section | SqueezeBertConfig):
                inside = f"{prefix}{name}." if key is None else f"{prefix}{name}.{key}."
                yield from _combined(value, removed, inside)


def _remove(values: dict[str, Any], location: Sequence[int | str]) -> str:
    """Take out the innermost key on the way to `location`, whole where it holds a list; its name with dots."""
    depth, inner = 0, cast(dict[int | str, Any], values)
    while depth < len(location) - 1 and isinstance(inner.get(location[depth]), dict):
        inner = inner[location[depth]]
        depth += 1
    if location:  # which is empty for a key that is no character, "\\ud800"
        inner.pop(location[depth], None)
    return ".".join(str(part) for part in location[: depth + 1])


def _explain(kind: type[BaseModel], detail: Mapping[str, Any]) -> str:
    location = [part for part in detail["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in location)
    if detail["type"] == "missing":
        return f"{key}: missing"
    if detail["type"] != "extra_forbidden":
        return f"{key}: {detail['msg'].removeprefix('Input ')}, not {detail['input']!r}"
    names = _names_at(kind, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    known = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(names)}"
    return f"{key}: unknown key; {known}"


def _names_at(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the section at `location`, found through the annotations."""
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is not None:
            kind = _section_in(field.annotation) or kind
    return list(kind.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)
