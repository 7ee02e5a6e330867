"""Distillation from finetuned teachers: their logits on the training examples, and the loss.

A teacher reads the text with its own tokenizer before training begins; its logits are computed once
and kept, and training uses only them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn

from sqzb import console
from sqzb.data.dataset import Classes, DataSet, Example, Kind, Label, Labels, Number, Tags
from sqzb.data.metrics import shown
from sqzb.data.own import OwnData
from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.finetuning.distillation.cache import Cache, sha256_of_texts
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import decide, measure
from sqzb.finetuning.finetuned import Finetuned, open_finetuned
from sqzb.finetuning.labels import confusion, under_chance
from sqzb.model.checkpoint import CONFIG, sha256_of, write_tensors
from sqzb.model.heads import ClassificationOutput, soft_task_loss
from sqzb.model.open import Classifier, ModelFolder, model_folder
from sqzb.recipe import Distillation, FinetuneRecipe
from sqzb.training.processes import warn
from sqzb.training.run_folder import recipe_of

# Examples in a file. A file takes seconds to compute, because other processes wait for the last
# one.
CHUNK = 1024
LOGITS = "logits"

Logits = NDArray[np.float32]


class DistillationModel(nn.Module):
    """A student with the loss of distillation; the student alone is saved and measured.

    weights: weights of the classes in the loss; None: 1.
    """

    weights: Tensor | None

    def __init__(
        self, student: Classifier, distillation: Distillation, weights: Tensor | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("weights", weights)
        self._temperature, self._alpha = distillation.temperature, distillation.alpha

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        labels: Tensor,
        teacher_logits: Tensor,
    ) -> ClassificationOutput:
        """Return the student's output, with the loss of distillation.

        teacher_logits: in the shape of the logits.
        """
        logits = self.student(input_ids, attention_mask, token_type_ids).logits
        loss_sum = soft_task_loss(
            logits, labels, teacher_logits, self._temperature, self._alpha, self.weights
        )
        return ClassificationOutput(logits, {"task": loss_sum})


def find_teachers(distillation: Distillation, data: DataSet, run: Path) -> list[ModelFolder]:
    """Return the teachers' folders, after the checks that need no opened model.

    run: the student's folder.

    Raises:
        UserError: a teacher cannot be found, is of the run itself, or was finetuned on another
            task.
    """
    folders = []
    for path in distillation.teacher:
        try:
            folder = model_folder(path)
            _refuse_other_run(folder, data, run)
        except UserError as error:
            raise UserError(f"distillation.teacher={path}: {error}") from error
        folders.append(folder)
    return folders


def ask_teachers(
    distillation: Distillation,
    teachers: Sequence[ModelFolder],
    data: DataSet,
    examples: Sequence[Example],
    student: Classifier,
    accelerator: Accelerator,
) -> Logits:
    """Return the mean of the teachers' logits on a training set, (examples, labels).

    The labels are in the data set's order. Of tags, the rows are words; numbers are in the labels'
    unit. Each teacher's logits are read from the cache as far as it has them. All processes that
    need the others, of this run and of other runs, share the work of computing them.

    teachers: as `find_teachers` returns them.
    student: the model with its initial weights.

    Raises:
        UserError: a teacher cannot be opened, has other labels, has weights or logits that are not
            finite, or is the student, or the cache is of other data or damaged.
    """
    logits = []
    for path, folder in zip(distillation.teacher, teachers, strict=True):
        try:
            logits.append(
                _logits_of(
                    path, folder, Path(distillation.cache), data, examples, student, accelerator
                )
            )
        except UserError as error:
            raise UserError(f"distillation.teacher={path}: {error}") from error
        clear_device_cache(garbage_collection=True)
    return np.asarray(np.mean(logits, axis=0, dtype=np.float64), np.float32)


def labelled(kind: Kind, examples: Sequence[Example], logits: Logits) -> list[Example]:
    """Return the examples with the labels that follow from the teachers' logits."""
    labels: list[Label] = decide(kind, logits).tolist()
    if isinstance(kind, Labels):
        labels = [tuple(np.flatnonzero(row).tolist()) for row in decide(kind, logits)]
    return [example._replace(label=label) for example, label in zip(examples, labels, strict=True)]


def report_teachers(
    distillation: Distillation,
    data: DataSet,
    logits: Logits,
    train_set: Encoded,
    extra_examples: Mapping[str, int],
    accelerator: Accelerator,
) -> None:
    """Print the part of the plan on the teachers, and warn if they are worse than chance.

    logits: theirs on the training set.
    extra_examples: number of further examples that they label, by origin.
    """
    predictions = decide(data.kind, logits)
    if isinstance(data.kind, Classes):
        problem = under_chance(confusion(data.kind, predictions, train_set))
        if problem is not None:
            warn(accelerator, f"The teacher on the training examples: {problem}")
    if accelerator.is_main_process:
        figures = measure(data, predictions, train_set)
        console.out.print(_plan_text(distillation, data.kind, figures, extra_examples))


def _plan_text(
    distillation: Distillation,
    kind: Kind,
    figures: Mapping[str, float],
    extra_examples: Mapping[str, int],
) -> str:
    """Return the lines of the plan on the teachers.

    figures: theirs on the training set. extra_examples: number of those that they label, by origin.
    """
    several = "the mean logits of " if len(distillation.teacher) > 1 else ""
    measured = ", ".join(
        f"{name} {shown(name, value)}" for name, value in figures.items() if name != "score"
    )
    temperature = "" if isinstance(kind, Number) else f", temperature {distillation.temperature:g}"
    plan = (
        f"taught by {several}{' and '.join(distillation.teacher)} ({measured} on the training "
        f"set): alpha {distillation.alpha:g}{temperature}"
    )
    extra = " and ".join(f"{count:,} {origin}" for origin, count in extra_examples.items() if count)
    noun = "example" if sum(extra_examples.values()) == 1 else "examples"
    return plan + (f"\nand {extra} {noun} with its labels, in each epoch" if extra else "")


def _logits_of(
    path: str,
    folder: ModelFolder,
    cache: Path,
    data: DataSet,
    examples: Sequence[Example],
    student: Classifier,
    accelerator: Accelerator,
) -> Logits:
    teacher = open_finetuned(folder, data, accelerator)
    weights = teacher.model.state_dict()
    _refuse_weights(weights, student)
    key = {
        "weights": sha256_of(weights),
        "config": sha256(folder.path / CONFIG),
        "tokenizer": hashlib.sha256(teacher.tokenizer.to_str().encode()).hexdigest(),
        "texts": sha256_of_texts(examples),
        "labels": list(data.kind.names),
        "max_length": teacher.max_length,
        "precision": accelerator.mixed_precision,
        "examples_in_a_file": CHUNK,
    }
    about = {
        "what": "A teacher's logits over the training examples of a task, in their order, so many "
        "in a file; a column a label, in the order of the labels here, or the score alone.",
        "teacher": path,
        "task": data.name,
        "split": "train",
    }
    is_tags = isinstance(data.kind, Tags)
    rows = [len(example.words or ()) if is_tags else 1 for example in examples]
    kept = _LogitsCache(cache, about, key, rows, data.kind.outputs)
    return np.concatenate(
        kept.read(lambda rows: _computed(teacher, examples[rows]), accelerator.is_main_process)
    )


def _refuse_other_run(folder: ModelFolder, data: DataSet, run: Path) -> None:
    """Raise UserError if the teacher is of this run or was finetuned on another task.

    The task is read from the recipe of the teacher's run, because RTE and QNLI have the same
    labels. A student of own data may have a teacher of a task, if their labels have the same names.
    """
    if folder.path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"The teacher belongs to the run {run} itself. Give another teacher.")
    recipe = recipe_of(str(folder.path), FinetuneRecipe)
    is_task = not isinstance(data, OwnData)
    if recipe is not None and is_task and recipe.task not in (None, data.name):
        raise UserError(
            f"The teacher was finetuned on {recipe.task}, but this run is for {data.name}. "
            f"Give a teacher of {data.name}."
        )


def _refuse_weights(weights: dict[str, Tensor], student: Classifier) -> None:
    encoder = {
        name: tensor for name, tensor in student.state_dict().items() if "classifier" not in name
    }
    if all(
        name in weights and torch.equal(tensor, weights[name].cpu())
        for name, tensor in encoder.items()
    ):
        raise UserError(
            "The teacher has the same weights that this run starts from. Give another "
            "teacher, or another --model."
        )


def _computed(teacher: Finetuned, examples: Sequence[Example]) -> Logits:
    encoded = teacher.encode(examples)
    logits = teacher.logits(encoded)
    broken = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(broken):
        first = broken[0]
        if encoded.words is not None:
            first = np.searchsorted(encoded.words.ends, first, side="right") - 1
        rows = "examples" if encoded.words is None else "words"
        raise UserError(
            f"The teacher's logits are not finite ({len(broken)} of {len(logits)} {rows}, first "
            f"of row {examples[first].row}). Train or download the teacher again, or set "
            "precision=fp32."
        )
    return np.ascontiguousarray(logits)


class _LogitsCache(Cache[Logits, Logits]):
    """The cache of a teacher's logits, as safetensors.

    rows: number of rows of logits for each example.
    """

    title, contents, suffix = "Teacher's logits", "logits", ".safetensors"

    def __init__(
        self,
        parent: Path,
        about: dict[str, Any],
        key: dict[str, Any],
        rows: Sequence[int],
        labels: int,
    ) -> None:
        super().__init__(parent, about, key, len(rows), CHUNK)
        self._rows_of, self._labels = rows, labels

    def write(self, path: Path, content: Logits) -> None:
        """Write the logits of a file."""
        write_tensors(path, {LOGITS: torch.from_numpy(content)})

    def load(self, path: Path, rows: slice) -> Logits:
        """Return the logits of a file, after checking that they are as written."""
        try:
            logits = load_file(path)[LOGITS]
        except (SafetensorError, KeyError) as error:
            raise self.unfit(f"{path.name} cannot be read ({error})") from error
        due = (sum(self._rows_of[rows]), self._labels)
        if logits.shape != due or logits.dtype != np.float32:
            raise self.unfit(f"{path.name} has {logits.shape} of {logits.dtype}, not {due} of fp32")
        if not np.isfinite(logits).all():
            raise self.unfit(f"{path.name} has logits that are not finite")
        return logits
