"""What stands in a recipe: keys, their types, defaults and limits, and what is impossible together."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sqzb.errors import Problem
from sqzb.model.config import SqueezeBertConfig

Masking = Literal["token", "word", "ngram"]

# Keys that the recipes of older runs have. At 0, their default, they had no effect.
REMOVED = frozenset(["distillation.hidden", "distillation.attention"])


def _size_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("size_or_auto", "Input should be a whole number, 1 or more, or auto")


def without_removed(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values without the removed keys that are 0; prefix: the section of these keys, as "distillation."."""
    return {key: value for key, value in values.items() if f"{prefix}{key}" not in REMOVED or value != 0}


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
    kernels: bool | None = Field(None, description="Triton's; null: on an NVIDIA GPU, compiled, in bf16")
    log_every: int = Field(10, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1, description="the newest")
    keep_every: int | None = Field(None, ge=1, description="and those of every so many steps; null: no others")
    max_skipped_steps: int = Field(10, ge=1, description="so many in a row that are not finite end the run")
    spike_factor: float | None = Field(None, gt=1, description="a loss over so many times its median is a spike")
    on_spike: Literal["warn", "rollback"] = Field("warn", description="rollback: to the last checkpoint, and around it")


class SoftTargets(Section):
    """A teacher's outputs as targets beside the labels (Hinton et al. 2015)."""

    temperature: float = Field(2.0, gt=0, description="logits are divided by it; not for a regression")
    alpha: float = Field(0.9, ge=0, le=1, description="share of the teacher's loss; the labels' has the rest")


class MaskedLMDistillation(SoftTargets):
    """A pretrained teacher's probabilities at the masked positions. Without a teacher: the labels alone, whatever the
    other keys say."""

    teacher: str | None = Field(
        None,
        min_length=1,
        description="a run, a saved model or a Hub id, with an MLM head and the corpus's vocabulary; null: none",
    )


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
    distillation: MaskedLMDistillation = MaskedLMDistillation()
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


class Distillation(SoftTargets):
    """A finetuned teacher's outputs. Without a teacher: the labels alone, whatever temperature, alpha and cache say;
    augment and unlabelled are refused."""

    teacher: tuple[str, ...] = Field(
        (),
        strict=False,
        description="a run, a saved model or a Hub id, finetuned on the task; of several, the mean of their logits",
    )
    cache: str = Field("data/teachers", min_length=1, description="where teachers' logits are kept for further runs")
    augment: int = Field(
        0,
        ge=0,
        description="so many copies of each training example, with words dropped, and others put in by the MLM head of "
        "the model that the run starts from; the teacher labels them",
    )
    unlabelled: str | None = Field(
        None,
        min_length=1,
        description="a text file of further examples, one a line, a tab between two sentences; the teacher labels them",
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _one(cls, teacher: Any) -> Any:
        return (teacher,) if isinstance(teacher, str) else teacher

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, values: Any) -> Any:
        """Drop removed keys that were off, so that the recipe of an older run stays valid."""
        return without_removed(values, "distillation.") if isinstance(values, dict) else values


class FinetuneRecipe(TrainingRecipe):
    """sqzb finetune."""

    may_change = TrainingRecipe.may_change | {"glue_dir", "distillation.cache"}
    length = "epochs"

    task: str | None = Field(None, description="a GLUE task, such as mrpc")
    glue_dir: str | None = Field(None, description="folder of GLUE's own files; null: they come from the Hub")
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
    distillation: Distillation = Distillation()

    def problems(self) -> list[Problem]:
        if self.early_stopping is None or self.keep_best:
            return []
        return [("early_stopping", "ends with a model that is not the best one: set keep_best=true too")]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with dots: {"a": {"b": 1}} is {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
