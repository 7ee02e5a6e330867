"""The keys of recipes for pretrain: types, defaults, limits and checks."""

from typing import Literal

from pydantic import Field

from sqzb.errors import Problem
from sqzb.model.config import OF_LABELS, SqueezeBertConfig
from sqzb.recipe.optimizer import Averaging, Optimizer
from sqzb.recipe.schema import SoftTargets, TrainingRecipe
from sqzb.recipe.values import Count, LocalPath, Section, changed_keys

Masking = Literal["token", "word", "ngram"]

# Keys of a model that pretraining does not read: they are for finetuned models, or the corpus's.
OF_FINETUNED = frozenset([*OF_LABELS, "id2label"])


class MaskedLMDistillation(SoftTargets):
    """A pretrained teacher's probabilities at the masked positions as targets.

    Without a teacher, the loss is that of the labels alone, and the other keys are errors.
    """

    teacher: LocalPath | None = Field(
        None,
        min_length=1,
        description="a run, a saved model or a Hub id, with the corpus's vocabulary; null: none",
    )

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect because there is no teacher."""
        if self.teacher is not None:
            return []
        return [(key, "has no effect without distillation.teacher") for key in changed_keys(self)]


class Initialisation(Section):
    """Changes to BERT's random weights, each off by default."""

    unigram_bias: bool = Field(
        False, description="begin with the corpus's token frequencies as the bias of the MLM head"
    )
    depth_scaled: bool = Field(
        False,
        description="divide the weights of both layers that write to the residual by sqrt(2 x "
        "layers)",
    )


class PretrainRecipe(TrainingRecipe):
    """The recipe of sqzb pretrain."""

    may_change = TrainingRecipe.may_change | {
        "corpus",
        "micro_batch",
        "unpad",
        "fused_loss",
        "evaluate_every",
        "evaluate_sequences",
    }
    length = "steps"

    corpus: LocalPath = Field(
        "data/corpus", min_length=1, description="the corpus folder, written by prepare-corpus"
    )
    sequence_length: int = Field(
        128, ge=8, description="tokens in a sequence; the corpus has chunks of this length"
    )
    max_predictions: int = Field(
        20, ge=1, description="largest number of masked positions in a sequence"
    )
    masking_rate: float = Field(0.15, gt=0, lt=1, description="share of the tokens to predict")
    masking_rate_end: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="that share in the last quarter of the steps: it changes with each quarter; "
        "null: one share",
    )
    masking: Masking = Field(
        "token", description="unit that is masked; ngram: 1 to 3 whole words, as in ALBERT"
    )
    sop: bool = Field(
        True, description="sentence order prediction beside the masked language model"
    )
    start_from: LocalPath | None = Field(
        None, description="a run, a saved model or a Hub id whose weights to start from"
    )
    model: SqueezeBertConfig | None = Field(
        None, description="sizes of a model to train from scratch; give this or start_from"
    )
    initialisation: Initialisation = Field(
        Initialisation(), description="random weights of a model to train from scratch"
    )
    steps: int = Field(56_000, ge=1, description="optimizer steps of the run")
    global_batch: int = Field(8192, ge=1, description="sequences in a step, over all processes")
    micro_batch: Count = Field(
        32, description="sequences that a process computes at once; auto: the most that fit"
    )
    unpad: bool = Field(
        False,
        description="compute tokens alone: the sequences of a micro-batch lie one after the other, "
        "without padding",
    )
    fused_loss: bool = Field(
        False,
        description="compute the masked-token loss part by part, without all its logits in memory",
    )
    optimizer: Optimizer = Field(
        Optimizer(), description="the optimizer, and its rate: linear warmup, then a schedule"
    )
    averaging: Averaging = Field(
        Averaging(), description="the mean of the weights of the last steps; without a share, off"
    )
    distillation: MaskedLMDistillation = Field(
        MaskedLMDistillation(),
        description="learn from a pretrained teacher too; without a teacher, off",
    )
    evaluate_every: int = Field(1000, ge=1, description="steps between two evaluations")
    evaluate_sequences: int | None = Field(
        4096, ge=1, description="number of held-out sequences to evaluate on; null: all"
    )
    checkpoint_every: int = Field(1000, ge=1, description="steps between two checkpoints")

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); empty if none are."""
        problems = []
        if isinstance(self.micro_batch, int) and self.global_batch % self.micro_batch:
            problems.append(
                (
                    "micro_batch",
                    f"{self.micro_batch} does not divide global_batch = {self.global_batch}",
                )
            )
        if self.max_predictions > self.sequence_length - 3:
            problems.append(
                (
                    "max_predictions",
                    f"{self.max_predictions} does not leave room for special tokens",
                )
            )
        if self.unpad and self.distillation.teacher is not None:
            problems.append(("unpad", "a teacher reads padded sequences: set it to false"))
        if self.fused_loss and self.distillation.teacher is not None:
            problems.append(("fused_loss", "a teacher's loss needs the logits: set it to false"))
        if (self.model is None) == (self.start_from is None):
            problems.append(
                ("model", "give either model (from scratch) or start_from, one of the two")
            )
        if self.model is not None and self.sequence_length > self.model.max_position_embeddings:
            positions = self.model.max_position_embeddings
            problems.append(
                (
                    "sequence_length",
                    f"{self.sequence_length} is over the model's {positions} positions",
                )
            )
        return problems

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect beside the others, as (key, reason)."""
        unread = super().unread_keys()
        for key in changed_keys(self.model) if self.model is not None else []:
            if key in OF_FINETUNED:
                unread.append((f"model.{key}", "has no effect: it is for finetuned models"))
            elif key == "pad_token_id":
                unread.append((f"model.{key}", "has no effect: the corpus's vocabulary has it"))
        if self.start_from is not None:
            for key in changed_keys(self.initialisation):
                unread.append((f"initialisation.{key}", "has no effect beside start_from"))
        if self.masking_rate_end == self.masking_rate:
            unread.append(("masking_rate_end", "has no effect: it is masking_rate"))
        return unread
