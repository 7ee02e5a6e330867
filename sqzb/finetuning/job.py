"""finetune: a pretrained model and a labelled data set to a run folder with a classifier."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from sqzb import console
from sqzb.data.dataset import Classes, DataSet, Example, in_common
from sqzb.errors import UserError
from sqzb.finetuning.distillation import augmentation
from sqzb.finetuning.distillation.teachers import Logits, Taught, ask_teachers
from sqzb.finetuning.evaluation import (
    Encoded,
    confusion,
    decide,
    encode,
    evaluate_splits,
    measure,
    under_chance,
)
from sqzb.finetuning.order import Order
from sqzb.finetuning.report import count_examples, print_validation_report
from sqzb.model.kernels.choice import choose_kernels
from sqzb.model.open import Classifier, Opened, Source, model_folder, open_classifier
from sqzb.recipe import FinetuneRecipe
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, MicroBatch, StepResult, start_accelerator
from sqzb.training.loop import NEVER, TrainingRun, check_folder
from sqzb.training.optimizers import parameter_groups, rate
from sqzb.training.run_folder import evaluations, write_card

LABELS = {"task": "labels"}
OF_STEP = "of_step"  # in the log: the figures are those of an earlier step's model, which is in final/


def finetune(recipe: FinetuneRecipe, data: DataSet, resume: str = NEVER, extend: bool = False) -> Path:
    """Run the recipe on the data set, or go on with it as `resume` says: "never", "auto" or a checkpoint's path; the
    run's folder.

    extend: the recipe may have another number of epochs than the run that goes on.
    """
    if data.train_split is None:
        raise UserError(
            f"{data.name} has no training examples: finetune {data.model_of}, whose model predicts it (sqzb eval "
            f"RUN --task {data.name} --split test)."
        )
    folder = Path(recipe.output or f"runs/{data.name}")
    check_folder(folder, resume)
    run = Finetuning(recipe, data, folder)
    run.show_plan()
    run.go(resume, extend)
    return folder


class Finetuning(TrainingRun):
    """A run on a labelled data set, with AdamW."""

    title = "Finetuning"
    kinds = tuple(LABELS)
    recipe: FinetuneRecipe
    model: Classifier

    def __init__(self, recipe: FinetuneRecipe, data: DataSet, folder: Path) -> None:
        super().__init__(recipe, folder, start_accelerator(recipe.precision))
        self.data = data
        assert data.train_split is not None  # as `finetune` checks
        source = model_folder(recipe.model)
        augmentation.check(recipe.distillation, source)
        opened = build_model(recipe, data, source)
        self.model, self.tokenizer = opened.model, opened.tokenizer
        choose_kernels(recipe, self.model, self.accelerator.device)
        train = self._load(data.train_split)
        self.train_set = self._encode(train)
        self.validation = {split: self._validation(split, train) for split in data.validation_splits}
        further = augmentation.further_texts(recipe, data, source, train, self.accelerator)
        self.further = {kind: len(examples) for kind, examples in further.items()}
        self.teacher_logits: Logits | None = None
        if recipe.distillation.teacher:
            self.teacher_logits = self._taught(train, [*chain(*further.values())])
        self.order = Order([len(ids) for ids in self.train_set.ids], recipe.batch, recipe.seed)
        self.steps_per_epoch = self.order.batches_per_epoch
        self.steps = recipe.epochs * self.steps_per_epoch
        self.needs_older = recipe.keep_best
        self.figures: dict[str, float] = {}
        self.scores: dict[int, float] = {}  # by the step of the evaluation

    def _load(self, split: str) -> list[Example]:
        examples, warnings = self.data.read(split)
        for warning in warnings:
            self._warn(warning)
        return examples

    def _validation(self, split: str, train: list[Example]) -> Encoded:
        examples = self._load(split)
        common = in_common(train, examples)
        if common:
            self._warn(
                f"{common:,} of the {len(examples):,} examples in {self.data.name}'s {split} split have the very texts "
                "of a training example: what is measured on them is memory too."
            )
        return self._encode(examples)

    def _encode(self, examples: list[Example]) -> Encoded:
        return encode(examples, self.tokenizer, self.recipe.max_length, self.data.kind)

    def _taught(self, train: list[Example], further: list[Example]) -> Logits:
        """What the teacher says; from it the further examples have their labels, and join the training set."""
        logits = ask_teachers(
            self.recipe.distillation, self.data, [*train, *further], self.model, self.folder, self.accelerator
        )
        kind = self.data.kind
        if isinstance(kind, Classes):
            wrong = under_chance(confusion(kind, decide(kind, logits[: len(train)]), self.train_set))
            if wrong is not None:
                self._warn(f"The teacher on the training examples: {wrong}")
        if further:
            more = self._encode(augmentation.labelled(kind, further, logits[len(train) :]))
            self.train_set = self.train_set.with_more(more)
        return logits

    def make_optimizer(self) -> Optimizer:
        return AdamW(parameter_groups(self.model, self.recipe.weight_decay), lr=self.recipe.lr, fused=True)

    def make_engine(self, optimizer: Optimizer) -> Engine:
        model: nn.Module = self.model
        if self.teacher_logits is not None:
            model = Taught(self.model, self.recipe.distillation)
        return Engine(self.accelerator, model, optimizer, LABELS, self.recipe.clip_norm, self.recipe.compile)

    def identity(self) -> dict[str, str]:
        splits = {"training": self.train_set, **self.validation}
        hashes = {f"the {split} set": encoded.sha256 for split, encoded in splits.items()}
        if self.teacher_logits is None:
            return hashes
        return hashes | {"what the teacher says": hashlib.sha256(self.teacher_logits.tobytes()).hexdigest()}

    def micro_batches(self, step: int) -> list[MicroBatch]:
        rows = self.order.rows_of_step(step)
        processes = self.accelerator.num_processes
        # All processes get as many, filled up with -1.
        filled = np.concatenate([rows, np.full(-len(rows) % processes, -1)])
        own = filled[self.accelerator.process_index :: processes]
        batch = self.train_set.batch(own)
        if self.teacher_logits is None:
            return [batch]
        logits = np.where(own[:, None] < 0, np.float32(0), self.teacher_logits[own])
        return [{**batch, "teacher_logits": torch.from_numpy(logits)}]

    def forward_flops(self, batch: MicroBatch) -> int:
        return self.model.forward_flops(*batch["input_ids"].shape)

    def micro_batch_numbers(self) -> Sequence[int]:
        return [self.accelerator.process_index]

    def made_of(self, step: int) -> list[Any]:
        """Rows of the training set."""
        rows: list[Any] = self.order.rows_of_step(step).tolist()
        return rows

    def rate(self, step: int) -> float:
        return rate(step, self.steps, self.recipe.lr, self.recipe.warmup, decay_power=1.0)

    def checkpoint_due(self) -> bool:
        due = self.done % (self.recipe.checkpoint_every or self.steps_per_epoch) == 0
        return due or (self.recipe.keep_best and self.evaluation_due())

    def evaluation_due(self) -> bool:
        return self.done % (self.recipe.evaluate_every or self.steps_per_epoch) == 0 and self.done < self.steps

    def evaluate(self) -> dict[str, float]:
        measured = self._measure(self.done)
        self.scores[self.done] = measured["validation_score"]
        return measured

    def _measure(self, step: int) -> dict[str, float]:
        """The figures of the model, which is that of `step`."""
        figures = evaluate_splits(self.model, self.validation, self.data, self.accelerator)
        # The first process's, since all must agree on what is best, and on another device a digit may differ.
        self.figures = self.engine.totals({name: value * self.main for name, value in figures.items()})
        measured = {f"validation_{name}": value for name, value in self.figures.items()}
        return {"epoch": round(step / self.steps_per_epoch, 3), **measured}

    # The best model is a checkpoint that is spared, and which one that is follows from the log: there is no state.

    def restore(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        super().restore(checkpoint, state)
        before = (line for line in evaluations(self.folder) if line["step"] <= self.done and OF_STEP not in line)
        self.scores = {line["step"]: line["validation_score"] for line in before}

    def best(self, until: int) -> int | None:
        """The step with the best score up to `until`, the first of equals; None before any evaluation."""
        return max((step for step in sorted(self.scores) if step <= until), key=self.scores.__getitem__, default=None)

    def needed(self, step: int) -> int | None:
        return self.best(step) if self.needs_older else None

    def over(self) -> bool:
        best, patience = self.best(self.done), self.recipe.early_stopping
        since = sum(step > best for step in self.scores) if best is not None else 0
        return super().over() or (patience is not None and since >= patience)

    def _take_best(self) -> int:
        """Put the best weights into the model; their step."""
        if self.done not in self.scores:
            self._evaluate()
        best = self.best(self.done)
        assert best is not None  # there is one evaluation at least
        checkpoint = checkpoints.of_step(self.folder, best)
        problems = checkpoints.damage(checkpoint) if best != self.done else []
        if problems:
            self._warn(f"final/ is the last model, for {checkpoint}, the best, is damaged: {', '.join(problems)}.")
            return self.done
        if best != self.done:
            checkpoints.load_model(checkpoint, self.model)
        return best

    def short(self, result: StepResult) -> str:
        return "  ".join(f"{name} {value:.1%}" for name, value in self.figures.items() if name != "score")

    def finish(self) -> None:
        """Write final/, then measure it."""
        step = self._take_best() if self.recipe.keep_best else self.done
        self.write_final()
        measured = self._measure(step)
        if step != self.done:
            logged = any(line["step"] == self.done and OF_STEP in line for line in evaluations(self.folder))
            measured = {OF_STEP: step, **measured}
        else:
            logged = self.log.evaluated(self.done)
        if not logged:
            self.log.log(self.done, **measured)
        if self.main:
            write_card(self.folder / "final", self.folder.name, self.recipe, self.figures)
            which = f", the best model, of step {step:,} of {self.done:,}" if self.recipe.keep_best else ""
            print_validation_report(f"Finetuned {self.folder}{which}", self.data, self.figures, self.validation)

    def show_plan(self) -> None:
        """Every number that follows from the recipe, before anything runs."""
        if self.main:
            recipe = self.recipe
            start = "sizes, random weights" if recipe.from_scratch else "weights"
            console.out.print(
                f"{self.data.name.upper()}: {self._labelled():,} training and {count_examples(self.validation)} "
                f"validation examples, {recipe.model} ({start}), {self.form}\n{self.steps:,} steps = {recipe.epochs} "
                f"epochs x {self.steps_per_epoch} batches of {recipe.batch}, rate {recipe.lr:g}, seed {recipe.seed}"
            )
            if self.teacher_logits is not None:
                console.out.print(self._plan_of_teacher(self.teacher_logits))

    def _plan_of_teacher(self, logits: Logits) -> str:
        distillation = self.recipe.distillation
        which = " and ".join(distillation.teacher)
        several = "the mean logits of " if len(distillation.teacher) > 1 else ""
        temperature = "" if not isinstance(self.data.kind, Classes) else f", temperature {distillation.temperature:g}"
        n = self._labelled()
        figures = measure(self.data, decide(self.data.kind, logits[:n]), self.train_set.first(n))
        own = ", ".join(f"{name} {value:.1%}" for name, value in figures.items() if name != "score")
        losses = f"alpha {distillation.alpha:g}{temperature}"
        further = " and ".join(f"{count:,} {kind}" for kind, count in self.further.items())
        taught = f"taught by {several}{which} ({own} on the training set): {losses}"
        return taught + (f"\nand {further} examples with its labels, in each epoch" if further else "")

    def _labelled(self) -> int:
        """How many training examples are the task's own, with labels; they come first."""
        return len(self.train_set.ids) - sum(self.further.values())


def build_model(recipe: FinetuneRecipe, data: DataSet, source: Source) -> Opened[Classifier]:
    """The model to start from, under a new head with the data set's labels."""
    torch.manual_seed(recipe.seed)
    changes: dict[str, Any] = {"id2label": data.kind.id2label}
    if recipe.dropout is not None:
        changes |= {"hidden_dropout_prob": recipe.dropout, "attention_probs_dropout_prob": recipe.dropout}
    opened = open_classifier(source, recipe.from_scratch, **changes)
    positions = opened.model.config.max_position_embeddings
    if recipe.max_length > positions:
        raise UserError(f"max_length {recipe.max_length} is over the model's {positions} positions. Lower it.")
    return opened
