"""Distillation: what finetuned teachers say of the training examples, computed once and kept; and the student's loss.

A teacher reads the text by its own tokenizer, before training begins, which then knows its logits alone, and what of
its inside is asked for (states.py).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb.data.dataset import DataSet, Example
from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.finetuning.distillation.cache import Cache, sha256_of_texts
from sqzb.finetuning.distillation.states import Asked, TeacherStates, attention_divergences, state_errors
from sqzb.finetuning.evaluation import Encoded
from sqzb.finetuning.finetuned import Finetuned, open_finetuned
from sqzb.hub import local_folder
from sqzb.model.checkpoint import CONFIG, sha256_of, write_tensors
from sqzb.model.classifiers import Classifier, TransformersClassifier
from sqzb.model.heads import IGNORED, SequenceClassificationOutput, soft_classification_tally, soft_regression_tally
from sqzb.recipe import Distillation, FinetuneRecipe
from sqzb.training.run_folder import recipe_of

CHUNK = 1024  # examples in a file; seconds to compute, as other processes of the run may wait for the last one
LOGITS = "logits"

Logits = NDArray[np.float32]


class Taught(nn.Module):
    """A student with the loss of distillation, for training; what is saved and measured is the student alone.

    project: of its states, where the loss has these.
    """

    def __init__(self, student: Classifier, distillation: Distillation, project: nn.Module | None = None) -> None:
        super().__init__()
        self.student, self.project = student, project
        self._temperature, self._alpha = distillation.temperature, distillation.alpha
        self._hidden, self._attention = distillation.hidden, distillation.attention

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        labels: Tensor,
        teacher_logits: Tensor,
        teacher_states: Tensor | None = None,
        teacher_attention: Tensor | None = None,
    ) -> SequenceClassificationOutput:
        """As the student's, but for the tally.

        teacher_logits (batch, labels), teacher_states (batch, the teacher's layers, its width), teacher_attention
        (batch, length, length).
        """
        inputs = (input_ids, attention_mask, token_type_ids)
        more = []
        if teacher_states is None and teacher_attention is None:
            logits = self.student(*inputs).logits
        else:
            logits, states, weights = self.student.inside(*inputs, attention=teacher_attention is not None)
            if teacher_states is not None:
                assert self.project is not None
                errors = state_errors(states, teacher_states, self.project)
                more.append(self._hidden * (errors * (labels != IGNORED)).sum())
            if teacher_attention is not None:
                assert weights is not None
                divergences = attention_divergences(weights, teacher_attention, attention_mask)
                more.append(self._attention * (divergences * (labels != IGNORED)).sum())
        if self.student.config.num_labels > 1:
            tally = soft_classification_tally(logits, labels, teacher_logits, self._temperature, self._alpha)
        else:
            tally = soft_regression_tally(logits, labels, teacher_logits, self._alpha)
        return SequenceClassificationOutput(logits, {"task": tally._replace(loss=sum(more, tally.loss))})


class Student(NamedTuple):
    """A student as it starts, and the training set as it reads it."""

    model: Classifier
    tokenizer: Tokenizer
    encoded: Encoded


def ask_teachers(
    distillation: Distillation,
    data: DataSet,
    examples: Sequence[Example],
    student: Student,
    run: Path,
    accelerator: Accelerator,
) -> tuple[Logits, TeacherStates | None]:
    """The mean of the teachers' logits over a training set (examples, labels), in the order of the data set's
    labels; and what lies inside the one teacher, where that is asked for.

    run: the student's folder. Each teacher's logits are read from the cache as far as they are there, and
    the rest is computed by all processes that want them, of this run and of others. UserError when a teacher cannot
    be opened, is of another task, has weights or logits that are not finite, or is the student, when its inside cannot
    be compared with the student's, and when the cache is of other data or damaged.
    """
    if distillation.attention and isinstance(student.model, TransformersClassifier):
        raise UserError("distillation.attention: only a SqueezeBERT learns it. Leave it at 0 for another --model.")
    sizes = [len(ids) for ids in student.encoded.ids]
    asked = Asked(distillation.hidden > 0, distillation.attention > 0, sizes)
    found, states = [], None
    for path in distillation.teacher:
        try:
            logits, states = _said_by(path, Path(distillation.cache), data, examples, student, asked, run, accelerator)
            found.append(logits)
        except UserError as error:
            raise UserError(f"distillation.teacher={path}: {error}") from error
        clear_device_cache(garbage_collection=True)
    return np.asarray(np.mean(found, axis=0, dtype=np.float64), np.float32), states


def _said_by(
    path: str,
    cache: Path,
    data: DataSet,
    examples: Sequence[Example],
    student: Student,
    asked: Asked,
    run: Path,
    accelerator: Accelerator,
) -> tuple[Logits, TeacherStates | None]:
    _refuse_other_run(path, data, run)
    teacher = open_finetuned(path, data, accelerator)
    weights = teacher.model.state_dict()
    _refuse_weights(weights, student.model)
    _refuse_tokens(teacher, examples, student, asked)
    key = {
        "weights": sha256_of(weights),
        "config": sha256(local_folder(path) / CONFIG),
        "tokenizer": hashlib.sha256(teacher.tokenizer.to_str().encode()).hexdigest(),
        "texts": sha256_of_texts(examples),
        "labels": list(data.kind.names),
        "max_length": teacher.max_length,
        "precision": accelerator.mixed_precision,
        "examples_in_a_file": CHUNK,
    }
    about = {
        "what": "A teacher's logits over the training examples of a task, in their order, so many in a file; a column "
        "a label, in the order of the labels here, or the score alone.",
        "teacher": path,
        "task": data.name,
        "split": "train",
    }
    if asked:
        # Not for logits alone, whose keys stay what they were.
        key["inside"] = {"states": asked.states, "attention": asked.attention, "dtype": "float16"}
        about["inside"] = (
            "states: the first token's behind each layer (examples, layers, width); attention: the last layer's, the "
            "mean of its heads, each example's (tokens, tokens) from offsets[i] on, flat."
        )
    kept = _LogitsCache(cache, about, key, (len(examples), data.kind.outputs), asked)
    logits = kept.read(lambda rows: _computed(teacher, examples[rows], asked), accelerator.is_main_process)
    return np.concatenate(logits), TeacherStates(kept.files, CHUNK, asked) if asked else None


def _refuse_other_run(path: str, data: DataSet, run: Path) -> None:
    """By the recipe of the teacher's run where it has one: RTE and QNLI have the same labels."""
    if local_folder(path).resolve().is_relative_to(run.resolve()):
        raise UserError(f"It is of the run {run} itself, so the teacher would be the student. Give another teacher.")
    recipe = recipe_of(path, FinetuneRecipe)
    if recipe is not None and recipe.task not in (None, data.name):
        raise UserError(
            f"It was finetuned on {recipe.task}, and this run is of {data.name}. Give a teacher of {data.name}."
        )


def _refuse_weights(weights: dict[str, Tensor], student: Classifier) -> None:
    encoder = {name: tensor for name, tensor in student.state_dict().items() if "classifier" not in name}
    if all(name in weights and torch.equal(tensor, weights[name].cpu()) for name, tensor in encoder.items()):
        raise UserError(
            "It has the very weights that this run starts from, so the teacher would be the student. Give another "
            "teacher, or another --model."
        )


def _refuse_tokens(teacher: Finetuned, examples: Sequence[Example], student: Student, asked: Asked) -> None:
    """What is asked for must mean the same in both."""
    if not asked:
        return
    own, its = student.encoded.ids, teacher.encode(examples).ids
    if asked.states and any(len({ids[0] for ids in read}) > 1 for read in (own, its)):
        raise UserError(
            "distillation.hidden is learnt from the first token's states, which stand for the text where it is one and "
            "the same in all, as [CLS], and here it is not. Leave it at 0."
        )
    vocabularies = [tokenizer.get_vocab() for tokenizer in (student.tokenizer, teacher.tokenizer)]
    differing = [row for row, (one, other) in enumerate(zip(own, its, strict=True)) if one != other]
    if asked.attention and (differing or vocabularies[0] != vocabularies[1]):
        what = "it has another vocabulary than the student"
        if vocabularies[0] == vocabularies[1]:
            what = f"{len(differing):,} of {len(own):,} examples differ, first of row {examples[differing[0]].row}"
        raise UserError(
            f"distillation.attention needs a teacher that reads the very same tokens as the student, but {what}. Leave "
            "it at 0, or give a teacher with the student's vocabulary and max_length."
        )


def _computed(teacher: Finetuned, examples: Sequence[Example], asked: Asked) -> dict[str, Tensor]:
    """What the cache keeps of some examples."""
    encoded, inside = teacher.encode(examples), {}
    if asked:
        logits, states, weights = teacher.inside(encoded, asked.attention)
        inside = asked.tensors(states, weights)
    else:
        logits = teacher.logits(encoded)
    broken = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(broken):
        raise UserError(
            f"Its logits are not finite ({len(broken)} of {len(examples)} examples, first of row "
            f"{examples[broken[0]].row}). Train or download it again, or give precision=fp32."
        )
    for name, array in inside.items():
        if not np.isfinite(array).all():
            raise UserError(f"Its {name} are not finite in 16 bits. Leave distillation.hidden and .attention at 0.")
    tensors = {LOGITS: logits, **inside}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}


class _LogitsCache(Cache[dict[str, Tensor], Logits]):
    title, what, suffix = "Teacher's logits", "logits", ".safetensors"

    def __init__(
        self, parent: Path, about: dict[str, Any], key: dict[str, Any], shape: tuple[int, int], asked: Asked
    ) -> None:
        """shape: (examples, labels)."""
        super().__init__(parent, about, key, shape[0], CHUNK)
        self._labels, self._asked = shape[1], asked

    def write(self, path: Path, content: dict[str, Tensor]) -> None:
        write_tensors(path, content)

    def load(self, path: Path, rows: slice) -> Logits:
        try:
            tensors = load_file(path)
            logits = tensors[LOGITS]
            misfit = self._asked.misfit(tensors, rows)
        except (SafetensorError, KeyError) as error:
            raise self.unfit(f"{path.name} cannot be read ({error})") from error
        due = (rows.stop - rows.start, self._labels)
        if logits.shape != due or logits.dtype != np.float32:
            raise self.unfit(f"{path.name} has {logits.shape} of {logits.dtype}, not {due} of fp32")
        if not np.isfinite(logits).all():
            raise self.unfit(f"{path.name} has logits that are not finite")
        if misfit is not None:
            raise self.unfit(f"{path.name} {misfit}")
        return logits
