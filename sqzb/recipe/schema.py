"""The keys that pretrain and finetune share, and those of finetune alone."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from sqzb.errors import Problem
from sqzb.recipe.own_data import OwnData
from sqzb.recipe.values import (
    Count,
    Length,
    LocalPath,
    Rate,
    Section,
    Switch,
    at_home,
    changed_keys,
)

Precision = Literal["fp32", "bf16", "auto"]
OF_PRECISION = (
    "number format of the computation; bf16: autocast; auto: bf16 on a GPU that has it, else fp32"
)

# Keys that the recipes of older runs have. At 0, their default, they had no effect.
REMOVED = frozenset(["distillation.hidden", "distillation.attention"])


def without_removed(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values without the removed keys that are 0.

    prefix: the section of the keys, as "distillation.".
    """
    return {
        key: value for key, value in values.items() if f"{prefix}{key}" not in REMOVED or value != 0
    }


class TrainingRecipe(Section):
    """The keys that pretraining and finetuning share.

    may_change: keys that may have another value when a run resumes.
    length: the key of the run's length, which --extend allows to change.
    """

    may_change: ClassVar[frozenset[str]] = frozenset(
        [
            *(
                "output",
                "compile",
                "kernels",
                "graphs",
                "copy_ahead",
                "log_every",
                "checkpoint_every",
                "keep_checkpoints",
            ),
            *("keep_every", "max_skipped_steps", "spike_factor", "on_spike", "trackers"),
        ]
    )
    length: ClassVar[str]

    output: LocalPath | None = Field(None, description="the run folder")
    seed: int = Field(0, ge=0, lt=2**64, description="seed of everything random in the run")
    precision: Precision = Field("fp32", description=OF_PRECISION)
    compile: bool = Field(False, description="torch.compile: slower to start, faster to run")
    kernels: bool | None = Field(
        None, description="use the Triton kernels; null: in bf16 on an H100 or H200"
    )
    graphs: Switch = Field(
        False,
        description="CUDA graphs, one for each length and one for the optimizer; auto: with the "
        "Triton kernels, one process, no teacher",
    )
    copy_ahead: bool = Field(
        False, description="copy batches to the GPU while the step before is computed"
    )
    log_every: int = Field(10, ge=1, description="steps between two log lines")
    trackers: tuple[Literal["tensorboard", "trackio"], ...] = Field(
        (),
        strict=False,
        description="programs that get the log's figures too; each needs its extra",
    )
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    keep_every: int | None = Field(
        None, ge=1, description="also keep the checkpoint of every N steps; null: no others"
    )
    max_skipped_steps: int = Field(
        10, ge=1, description="stop after this many consecutive non-finite steps"
    )
    spike_factor: float | None = Field(
        None, gt=1, description="a loss over this many times its median is a spike; null: off"
    )
    on_spike: Literal["warn", "rollback"] = Field(
        "warn", description="rollback: return to the last checkpoint and skip the spike's data"
    )

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect beside the others, as (key, reason)."""
        if self.on_spike == "warn" or self.spike_factor is not None:
            return []
        return [("on_spike", f"{self.on_spike} has no effect without spike_factor")]


class SoftTargets(Section):
    """A teacher's outputs as targets beside the labels (Hinton et al. 2015)."""

    temperature: float = Field(
        2.0, gt=0, description="logits are divided by it; not used for a regression"
    )
    alpha: float = Field(
        0.9, ge=0, le=1, description="weight of the teacher's loss; the labels' loss has the rest"
    )


class Distillation(SoftTargets):
    """A finetuned teacher's outputs as targets.

    Without a teacher, the loss is that of the labels alone, and the other keys are errors.
    """

    teacher: tuple[str, ...] = Field(
        (),
        strict=False,
        description="a finetuned run, saved model or Hub id; of several, their logits' mean",
    )
    cache: LocalPath = Field(
        "data/teachers",
        min_length=1,
        description="folder that keeps teachers' logits for further runs",
    )
    augment: int = Field(
        0,
        ge=0,
        description="number of altered copies of each training example: words are dropped, or "
        "replaced by the MLM head of the model that the run starts from; the teacher labels them",
    )
    unlabelled: LocalPath | None = Field(
        None,
        min_length=1,
        description="a text file of further examples, one on each line, a tab between two "
        "sentences; the teacher labels them",
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _one(cls, teacher: Any) -> Any:
        return at_home((teacher,) if isinstance(teacher, str) else teacher)

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, values: Any) -> Any:
        """Drop removed keys that were off, so that the recipe of an older run stays valid."""
        return without_removed(values, "distillation.") if isinstance(values, dict) else values


class FinetuneRecipe(TrainingRecipe):
    """The recipe of sqzb finetune."""

    may_change = TrainingRecipe.may_change | {
        *("glue_dir", "distillation.cache", "data.train", "data.validation", "data.test"),
    }
    length = "epochs"

    precision: Precision = Field("auto", description=OF_PRECISION)
    task: str | None = Field(
        None, description="a GLUE task, such as mrpc; several with commas between; or all: all nine"
    )
    glue_dir: LocalPath | None = Field(
        None,
        description="folder of GLUE's own files, or nyu-mll/glue@REVISION; null: the Hub's newest",
    )
    data: OwnData = Field(OwnData(), description="labelled data of your own, in place of a task")
    model: LocalPath = Field(
        "squeezebert/squeezebert-uncased",
        min_length=1,
        description="a run, a saved model or a Hub id (OWNER/NAME@REVISION) to start from",
    )
    from_scratch: bool = Field(
        False, description="start from random weights, with the model's sizes and vocabulary"
    )
    epochs: Count = Field(
        10, description="passes over the training examples; auto: by their number"
    )
    lr: Rate = Field(3e-5, description="peak learning rate; auto: by the width of the model")
    batch: int = Field(16, ge=1, description="examples in a step, over all processes")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    weight_decay: float = Field(
        0.01, ge=0, description="decay of the weights, but not of biases and norms"
    )
    clip_norm: float = Field(
        1.0, gt=0, description="largest global norm of the gradient; longer ones are scaled down"
    )
    max_length: Length = Field(
        128,
        description="tokens in an example; longer examples are cut; auto: by the lengths of the "
        "training examples",
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout everywhere in the model; null: the model's own"
    )
    keep_checkpoints: int = Field(1, ge=1, description="number of newest checkpoints to keep")
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between two checkpoints; null: at the end of each epoch"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between two evaluations; null: at the end of each epoch"
    )
    keep_best: bool = Field(
        False,
        description="save the best model by validation score as final/; false: the last one",
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="stop after this many evaluations in a row without a better score; null: never",
    )
    best_metric: str | None = Field(
        None,
        min_length=1,
        description="the metric that is the score, such as macro_f1; null: the data set's own",
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: each class has the same weight in the loss, however rare; null: off",
    )
    distillation: Distillation = Field(
        Distillation(), description="learn from finetuned teachers too; without a teacher, off"
    )

    @property
    def data_name(self) -> str | None:
        """The GLUE task, or the name of the user's own data: that of its first file."""
        if not self.data.train:
            return self.task
        from sqzb.data.own import data_set_name  # imports pyarrow, which takes its time

        return data_set_name(self.data.train[0])

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); empty if none are."""
        problems: list[Problem] = []
        if self.early_stopping is not None and not self.keep_best:
            reason = "ends with a model that is not the best one: set keep_best=true too"
            problems.append(("early_stopping", reason))
        if self.data.train and self.task is not None:
            reason = "is for GLUE, and data.train (--train) is data of your own: give one of them"
            problems.append(("task", reason))
        return problems

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect beside the others, as (key, reason)."""
        unread = super().unread_keys()
        if self.data.train and self.glue_dir is not None:
            unread.append(("glue_dir", "has no effect on data of your own (data.train)"))
        is_number = self.data.kind == "number" or (not self.data.train and self.task == "stsb")
        if is_number and "temperature" in changed_keys(self.distillation):
            unread.append(("distillation.temperature", "has no effect on numbers"))
        return unread
