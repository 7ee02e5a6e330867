"""A masked language model as a teacher in pretraining.

Its probabilities at the masked positions are targets too. Masks are drawn anew in each epoch, so
the teacher runs in the training step, on the inputs of the student.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb.corpus.store import Corpus
from sqzb.errors import UserError
from sqzb.model import SqueezeBertForMaskedLM, SqueezeBertForPreTraining
from sqzb.model.checkpoint import sha256_of
from sqzb.model.heads import PreTrainingOutput, at_positions, soft_classification_loss
from sqzb.model.open import open_masked_lm
from sqzb.recipe import PretrainRecipe


class Teacher(ABC):
    """A masked language model that computes targets and is never trained.

    A teacher is not a module, and so no part of a module that holds it: its weights are not in
    checkpoints, the optimizer, the gradient norm or the exchange between processes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.sha256 = sha256_of(model.state_dict())

    @abstractmethod
    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        mlm_positions: Tensor,
    ) -> Tensor:
        """Return the logits at mlm_positions (batch, predictions).

        The result is (batch, predictions, vocabulary).
        """


class OwnTeacher(Teacher):
    """A SqueezeBERT as a teacher."""

    model: SqueezeBertForMaskedLM

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        mlm_positions: Tensor,
    ) -> Tensor:
        """Return the logits at mlm_positions: (batch, predictions, vocabulary)."""
        encoder = self.model.transformer
        x = encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        logits: Tensor = self.model.cls(
            at_positions(x, mlm_positions), encoder.embeddings.word_embeddings
        )
        return logits


class ForeignTeacher(Teacher):
    """A model of transformers as a teacher."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        takes = inspect.signature(model.forward).parameters
        types = getattr(model.config, "type_vocab_size", 2)
        self._takes_types = "token_type_ids" in takes and types > 1
        # torch.compile may fail on the code of other models. Not as a decorator, which would load
        # torch.compile's libraries with this module.
        self.logits = torch.compiler.disable(self.logits)  # type: ignore[method-assign]

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        mlm_positions: Tensor,
    ) -> Tensor:
        """Return the logits at mlm_positions: (batch, predictions, vocabulary).

        The name of the head differs between models, but every head reads the encoder's output. So a
        hook reduces that output to the masked positions, and the head computes no others.
        """

        def cut(encoder: nn.Module, arguments: Any, output: Any) -> Any:
            output.last_hidden_state = at_positions(output.last_hidden_state, mlm_positions)
            return output

        types = {"token_type_ids": token_type_ids} if self._takes_types else {}
        with self.model.base_model.register_forward_hook(cut):
            logits: Tensor = self.model(
                input_ids=input_ids, attention_mask=attention_mask, **types
            ).logits
        return logits


class DistillationModel(nn.Module):
    """A student whose MLM loss in training is distillation's; in evaluation, the student alone."""

    def __init__(
        self, student: SqueezeBertForPreTraining, teacher: Teacher, temperature: float, alpha: float
    ) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self._temperature, self._alpha = temperature, alpha

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        mlm_positions: Tensor,
        mlm_labels: Tensor,
        sop_labels: Tensor,
    ) -> PreTrainingOutput:
        """Return the student's output; in training, the MLM loss is that of distillation.

        Arguments are those of SqueezeBertForPreTraining.forward.
        """
        inputs = (input_ids, attention_mask, token_type_ids, mlm_positions)
        if not self.training:
            output: PreTrainingOutput = self.student(*inputs, mlm_labels, sop_labels)
            return output
        # The teacher runs first, so that its memory is free before the student's activations fill.
        with torch.no_grad():
            targets = self.teacher.logits(*inputs)
        output = self.student(*inputs, sop_labels=sop_labels)
        assert output.mlm_logits is not None  # because the student got no MLM labels
        mlm = soft_classification_loss(
            output.mlm_logits.flatten(0, 1),
            mlm_labels.flatten(),
            targets.flatten(0, 1),
            self._temperature,
            self._alpha,
        )
        return output._replace(mlm_logits=None, loss_sums={"mlm": mlm, **output.loss_sums})


def build_distillation_model(
    recipe: PretrainRecipe, corpus: Corpus, student: SqueezeBertForPreTraining, device: torch.device
) -> DistillationModel | None:
    """Return the student with the recipe's teacher, which is moved to `device`; None without one.

    student: the student with its initial weights.

    Raises:
        UserError: the teacher cannot be opened, has no MLM head, another vocabulary, too few
            positions or weights that are not finite, or is the student.
    """
    settings = recipe.distillation
    if settings.teacher is None:
        return None
    try:
        opened = open_masked_lm(settings.teacher)
        own = isinstance(opened.model, SqueezeBertForMaskedLM)
        teacher = OwnTeacher(opened.model) if own else ForeignTeacher(opened.model)
        _check_vocabulary(opened.tokenizer, corpus)
        _refuse_student(teacher, student)
        _check_positions(teacher, recipe.sequence_length)
        _try(teacher, recipe, corpus)
    except UserError as error:
        raise UserError(f"distillation.teacher={settings.teacher}: {error}") from error
    teacher.model.to(device)
    return DistillationModel(student, teacher, settings.temperature, settings.alpha)


def _check_vocabulary(tokenizer: Tokenizer, corpus: Corpus) -> None:
    """Raise UserError if a token has another id, because the teacher gets ids alone."""
    own = {number: token for token, number in corpus.tokenizer.get_vocab().items()}
    its = {number: token for token, number in tokenizer.get_vocab().items()}
    differing = sorted(number for number in own | its if own.get(number) != its.get(number))
    if differing:
        first = differing[0]
        raise UserError(
            f"The teacher's vocabulary is not that of the corpus {corpus.folder}: "
            f"{len(differing):,} of {len(own | its):,} tokens differ, first number {first}, which "
            f"is {its.get(first, 'absent')!r} there and {own.get(first, 'absent')!r} here. Give a "
            "teacher with the corpus's vocabulary, or prepare a corpus with the teacher's "
            "(vocabulary.path in the corpus's recipe)."
        )


def _refuse_student(teacher: Teacher, student: SqueezeBertForPreTraining) -> None:
    weights, start = teacher.model.state_dict(), student.state_dict()
    if all(name in start and torch.equal(tensor, start[name]) for name, tensor in weights.items()):
        raise UserError(
            "The teacher has the same weights that this run starts from. Give another teacher, "
            "or another start_from."
        )


def _check_positions(teacher: Teacher, length: int) -> None:
    positions = getattr(teacher.model.config, "max_position_embeddings", length)
    if positions < length:
        raise UserError(
            f"The teacher has {positions} positions, and sequence_length is {length}. Lower "
            "sequence_length, or give a teacher with more positions."
        )


@torch.no_grad()
def _try(teacher: Teacher, recipe: PretrainRecipe, corpus: Corpus) -> None:
    """Raise UserError if the teacher gives no logits at masked positions, however it is built."""
    ones = torch.ones(1, recipe.sequence_length, dtype=torch.long)
    tokens = ones * corpus.manifest["special_ids"]["mask"]
    due = (1, recipe.max_predictions, corpus.manifest["vocab_size"])
    try:
        shape = tuple(teacher.logits(tokens, ones, ones, ones[:, : recipe.max_predictions]).shape)
    except Exception as error:  # the code of other models may raise any error
        raise UserError(
            f"The teacher does not run ({' '.join(str(error).split())}). Give another model."
        ) from error
    if shape != due:
        raise UserError(
            f"The teacher's logits have the shape {shape} instead of {due}: sequences, masked "
            "positions, tokens of the vocabulary. Give another model."
        )
