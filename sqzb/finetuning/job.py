"""Finetuning as a job of the training loop: from a model and labelled data to a run folder."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from sqzb import console
from sqzb.data.dataset import DataSet, Example, are_labelled
from sqzb.data.metrics import shown
from sqzb.data.own import OwnData
from sqzb.finetuning.calibration import calibrate, calibration_errors
from sqzb.finetuning.card import card_facts
from sqzb.finetuning.data import check_trainable, write_known
from sqzb.finetuning.distillation import augmentation
from sqzb.finetuning.distillation.lessons import label_with_teachers
from sqzb.finetuning.distillation.teachers import (
    DistillationModel,
    Logits,
    find_teachers,
    report_teachers,
)
from sqzb.finetuning.encode import Encoded, encode, on_scale
from sqzb.finetuning.evaluation import Measured, measure_splits, predict_splits
from sqzb.finetuning.mistakes import write_evaluation
from sqzb.finetuning.order import Order, batches_in
from sqzb.finetuning.plan import plan_rows, print_unseen
from sqzb.finetuning.report import print_next_commands, print_own_data, print_result
from sqzb.finetuning.scores import OF_STEP, Scores, load_best
from sqzb.finetuning.settings import resolved_recipe
from sqzb.finetuning.start import build_model
from sqzb.finetuning.texts import common_texts, unseen_words
from sqzb.finetuning.weights import Weighted, balanced_weights, check_weights
from sqzb.model.kernels.choice import choose_kernels
from sqzb.model.layers import by_kernels
from sqzb.model.open import ModelFolder, model_folder
from sqzb.model.scale import scale_taken_up, to_scale
from sqzb.recipe import FinetuneRecipe, number
from sqzb.training import checkpoints, loop
from sqzb.training.card import Facts, write_card
from sqzb.training.engine import (
    Engine,
    MicroBatch,
    StepResult,
    chosen_precision,
    start_accelerator,
)
from sqzb.training.graphs import choose_graphs
from sqzb.training.job import device_summary
from sqzb.training.optimizers import learning_rate, parameter_groups
from sqzb.training.processes import warn
from sqzb.training.resume import NEVER, check_folder, start_or_checkpoint
from sqzb.training.run_folder import RunLog, evaluations

LABELS = {"task": "labels"}
LENGTH_UNIT = 16  # tokens: with CUDA graphs, batches have a multiple of it


def finetune(
    recipe: FinetuneRecipe,
    data: DataSet,
    resume: str = NEVER,
    extend: bool = False,
    dry_run: bool = False,
) -> Path:
    """Run the recipe on the data set, and return the run's folder.

    resume: "never", "auto" or the path of a checkpoint.
    extend: allow another number of epochs than that of the resumed run.
    dry_run: check the run, print its plan, and write nothing.

    Raises:
        UserError: the data set has no training or no validation examples.
    """
    check_trainable(data)
    folder = Path(recipe.output or f"runs/{data.name}")
    check_folder(folder, resume)
    start = start_or_checkpoint(recipe.model, folder, resume)
    job = Finetuning(recipe, data, folder, start)
    if dry_run:
        loop.check(job, resume, extend)
    else:
        loop.run(job, resume, extend)
    return folder


class Finetuning:
    """The job of learning a labelled data set with AdamW, and from the recipe's teachers."""

    title = "Finetuning"
    losses = tuple(LABELS)

    def __init__(
        self, recipe: FinetuneRecipe, data: DataSet, folder: Path, start: ModelFolder | None = None
    ) -> None:
        self._given, self.data, self.folder = recipe, data, folder
        recipe = recipe.model_copy(update={"precision": chosen_precision(recipe.precision)})
        self.accelerator = start_accelerator(recipe.precision)
        assert data.train_split is not None  # as `finetune` checks
        self._source = start or model_folder(recipe.model)
        augmentation.check(recipe.distillation, self._source, data.kind)
        check_weights(recipe.class_weights, data)
        self._teachers = find_teachers(recipe.distillation, data, folder)
        opened = build_model(recipe, data, self._source)
        self.model, self.tokenizer = opened.model, opened.tokenizer
        # GLUE keeps the labels of its test splits back. Test files of own data may have them.
        tests = data.test_splits if isinstance(data, OwnData) else ()
        self._splits = {split: self._load(split) for split in (*data.labelled_splits, *tests)}
        self._train = self._splits[data.train_split]
        recipe, self.texts = resolved_recipe(recipe, self._train, self.model, self.tokenizer)
        self.recipe = recipe
        self.epochs, self.lr = int(number(recipe.epochs)), number(recipe.lr)
        self.max_length = int(number(recipe.max_length))
        choose_kernels(recipe, self.model, self.accelerator.device)
        measured = by_kernels(self.model) and not recipe.distillation.teacher
        self.graphs = choose_graphs(recipe.graphs, self.accelerator, measured)

        # The examples with labels. `prepare` adds those that the teachers label, but their number
        # is known here.
        self._unlabelled = augmentation.read_unlabelled(recipe.distillation, data)
        n_augmented = recipe.distillation.augment * len(self._train)
        self.extra_examples = {"unlabelled": len(self._unlabelled), "augmented": n_augmented}
        self.train_set = self._encode(self._train)
        self.validation = {
            split: self._encode(self._splits[split]) for split in data.validation_splits
        }
        self.test = {
            split: self._encode(self._splits[split])
            for split in tests
            if are_labelled(self._splits[split])
        }
        self.teacher_logits: Logits | None = None

        n_examples = len(self._train) + sum(self.extra_examples.values())
        self.steps_per_epoch = batches_in(n_examples, recipe.batch)
        self.steps = self.epochs * self.steps_per_epoch

        # The results of the evaluations.
        self.checkpoint_bytes = checkpoints.size(self.model)
        self.needs_older_checkpoints = recipe.keep_best
        self.figures: dict[str, float] = {}  # of the last evaluation
        self.scores = Scores()

    def _load(self, split: str) -> list[Example]:
        examples, warnings = self.data.read(split)
        for warning in warnings:
            warn(self.accelerator, warning)
        return examples

    def _encode(self, examples: list[Example]) -> Encoded:
        encoded = encode(examples, self.tokenizer, self.max_length, self.data.kind)
        for warning in unseen_words(encoded, self.max_length):
            warn(self.accelerator, warning)
        return encoded

    # Before the first step

    def prepare(self) -> None:
        """Make the augmented texts and ask the teachers, unless their caches have the answers."""
        if isinstance(self.data, OwnData) and self.accelerator.is_main_process:
            write_known(self.folder, self.data.known)
        if self.recipe.distillation.teacher:
            self._learn_from_teachers()
        self.targets = on_scale(self.data.kind, self.train_set)
        # The texts take much memory, and are no longer needed.
        self._splits, self._train, self._unlabelled = {}, [], []
        self.order = Order(
            [len(ids) for ids in self.train_set.ids], self.recipe.batch, self.recipe.seed
        )
        assert self.order.batches_per_epoch == self.steps_per_epoch

    def _learn_from_teachers(self) -> None:
        """Add the teachers' logits, and the extra examples that they label, to the training set."""
        taught, n = self.train_set, len(self.train_set.labels)
        extra, logits = label_with_teachers(
            self.recipe,
            self.data,
            self._source,
            self._teachers,
            (self._train, self._unlabelled),
            self.model,
            self.accelerator,
        )
        report_teachers(
            self.recipe.distillation,
            self.data,
            logits[:n],
            taught,
            self.extra_examples,
            self.accelerator,
        )
        if extra:
            self.train_set = taught.with_more(self._encode(extra))
        self.teacher_logits = logits

    def input_hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each input of the run, by its name in messages."""
        hashes = {f"the {split} set": encoded.sha256 for split, encoded in self.validation.items()}
        # A teacher labels a part of the training set.
        if not self.recipe.distillation.teacher or self.teacher_logits is not None:
            hashes["the training set"] = self.train_set.sha256
        if self.teacher_logits is not None:
            hashes["what the teacher says"] = hashlib.sha256(
                self.teacher_logits.tobytes()
            ).hexdigest()
        return hashes

    def make_engine(self) -> Engine:
        """Return the engine that trains the model, with AdamW."""
        recipe = self.recipe
        optimizer = AdamW(parameter_groups(self.model, recipe.weight_decay), lr=self.lr, fused=True)
        trained: nn.Module = self.model
        weights = balanced_weights(self.data, self.train_set) if recipe.class_weights else None
        if self.teacher_logits is not None:
            trained = DistillationModel(self.model, recipe.distillation, weights)
        elif weights is not None:
            trained = Weighted(self.model, weights)
        engine = Engine(
            self.accelerator,
            trained,
            optimizer,
            LABELS,
            recipe.clip_norm,
            recipe.compile,
            self.graphs,
        )
        engine.copy_ahead = recipe.copy_ahead
        return engine

    # A step

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this process's only micro-batch of a step, in a list."""
        rows = self.order.rows_of_step(step)
        processes = self.accelerator.num_processes
        # All processes get an equal number of rows, padded with -1.
        filled = np.concatenate([rows, np.full(-len(rows) % processes, -1)])
        own = filled[self.accelerator.process_index :: processes]
        # Each length has a CUDA graph of its own, so there must be few lengths.
        batch = self.targets.batch(own, LENGTH_UNIT if self.graphs else 1, self.max_length)
        if self.teacher_logits is None:
            return [batch]
        logits = self.targets.rows_of(self.teacher_logits, own, batch["input_ids"].shape[1], 0)
        logits = to_scale(self.data.kind, logits)
        return [{**batch, "teacher_logits": torch.from_numpy(logits)}]

    def micro_batch_numbers(self) -> Sequence[int]:
        """Return the number of this process's micro-batch in a step."""
        return [self.accelerator.process_index]

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warmup, then linear decay to zero."""
        return learning_rate(step, self.steps, self.lr, self.recipe.warmup, decay_power=1.0)

    def forward_flops(self, batch: MicroBatch) -> int:
        """Return the floating-point operations of a forward on the micro-batch."""
        return self.model.forward_flops(*batch["input_ids"].shape)

    def example_ids(self, step: int) -> list[Any]:
        """Return the rows of a step in the training set."""
        rows: list[Any] = self.order.rows_of_step(step).tolist()
        return rows

    def progress_text(self, result: StepResult) -> str:
        """Return the figures of the last evaluation, for the progress bar."""
        return "  ".join(
            f"{name} {shown(name, value)}"
            for name, value in self.figures.items()
            if name != "score"
        )

    # Between steps

    def is_finished(self, step: int) -> bool:
        """Return whether the run ends after `step` steps, its last or by early stopping."""
        best, patience = self.scores.best(step), self.recipe.early_stopping
        since_best = 0 if best is None else self.scores.since(best)
        return step >= self.steps or (patience is not None and since_best >= patience)

    def checkpoint_due(self, step: int) -> bool:
        """Return whether a checkpoint is written after this step."""
        due = step % (self.recipe.checkpoint_every or self.steps_per_epoch) == 0
        return due or (self.recipe.keep_best and self.evaluation_due(step))

    def evaluation_due(self, step: int) -> bool:
        """Return whether the model is evaluated after this step; `finish` evaluates the last."""
        return (
            step % (self.recipe.evaluate_every or self.steps_per_epoch) == 0 and step < self.steps
        )

    def evaluate(self, engine: Engine, step: int) -> dict[str, float]:
        """Evaluate the model, record its score, and return the figures to log."""
        figures = self._measure(engine, step)
        self.scores.record(step, figures["validation_score"])
        return figures

    def _measure(self, engine: Engine, step: int) -> dict[str, float]:
        """Return the figures to log of the model of `step`."""
        splits = self.validation
        logits = predict_splits(self.model, splits, self.data.kind, self.accelerator)
        return self._agreed(engine, step, measure_splits(self.data, logits, splits))

    def _agreed(self, engine: Engine, step: int, figures: dict[str, float]) -> dict[str, float]:
        """Return the first process's figures of the model of `step`, in the form of the log.

        All processes must agree on the best model, but on other devices a figure may differ in a
        digit.
        """
        main = self.accelerator.is_main_process
        self.figures = engine.totals({name: value * main for name, value in figures.items()})
        measured = {f"validation_{name}": value for name, value in self.figures.items()}
        return {"epoch": round(step / self.steps_per_epoch, 3), **measured}

    def check_inputs(self) -> None:
        """Do nothing, because the data is in memory since its hash was taken."""

    def results(self) -> dict[str, Any]:
        """Return the scores of the evaluations so far, from which the best model follows."""
        return {"scores": self.scores.to_json()}

    def on_restore(self, step: int, results: Mapping[str, Any]) -> None:
        """Restore the scores of the evaluations up to this step."""
        self.scores.restore(self.folder, step, results.get("scores", {}))

    def needed_checkpoint(self, step: int) -> int | None:
        """Return the step of the best model so far, if the recipe keeps it."""
        return self.scores.best(step) if self.needs_older_checkpoints else None

    # After the last step

    def finish(self, engine: Engine, log: RunLog, step: int) -> None:
        """Calibrate the last or the best model, write it to final/ and report its figures."""
        main, data, splits = self.accelerator.is_main_process, self.data, self.validation
        taken = step
        if self.recipe.keep_best:
            if step not in self.scores:
                log.log(step, **self.evaluate(engine, step))
            taken = load_best(self.scores, step, self.folder, self.model, self.accelerator)
        logits = predict_splits(self.model, splits, data.kind, self.accelerator)
        calibration = calibrate(data.kind, logits, splits)
        test_logits = predict_splits(self.model, self.test, data.kind, self.accelerator)
        test_figures = {}
        if self.test:
            test_figures = measure_splits(data, test_logits, self.test, calibration.thresholds)
        if main:
            self.model.update_config(**calibration.fields)
            with scale_taken_up(self.model):
                checkpoints.write_final(self.folder, self.model, self.tokenizer, self.recipe)
            # It comes before the figures in the log, which mark the run as finished.
            write_evaluation(
                self.folder,
                data,
                logits | test_logits,
                splits | self.test,
                calibration.thresholds,
                test_figures,
            )

        measured = measure_splits(data, logits, splits, calibration.thresholds)
        if isinstance(data, OwnData):
            measured |= calibration_errors(calibration, logits, splits)
        figures = self._agreed(engine, taken, measured)
        # The last step's evaluation, which chose the best, came before the calibration.
        fitted = self.recipe.keep_best and calibration.changes_figures(isinstance(data, OwnData))
        is_another = taken != step or fitted
        if is_another:
            figures = {OF_STEP: taken, **figures}
        is_logged = any(
            line["step"] == step and (OF_STEP in line) == is_another
            for line in evaluations(self.folder)
        )
        if not is_logged:
            log.log(step, **figures)
        if main:
            write_card(self.folder, self.recipe, self._card_facts())
            best = f", best model, step {taken:,} of {step:,}" if self.recipe.keep_best else ""
            title = f"Finetuned {self.folder}{best}"
            validation = Measured(splits, logits, self.figures)
            test = Measured(self.test, test_logits, test_figures)
            print_result(title, data, validation, test, calibration.thresholds)
            print_next_commands(self.folder, data)

    def _card_facts(self) -> Facts:
        """Return the content of the model card of final/."""
        extra = {split: n for split, n in self.extra_examples.items() if n}
        rows = {"train": len(self.train_set.ids) - sum(extra.values()), **extra}
        rows |= {split: len(encoded.ids) for split, encoded in self.validation.items()}
        return card_facts(self.recipe, self.data, rows, self.input_hashes(), self.figures)

    # The plan

    def print_plan(self) -> None:
        """Print every number that follows from the recipe, before anything runs."""
        if not isinstance(self.data, OwnData):
            for warning in common_texts(self.data, self._splits):
                warn(self.accelerator, warning)
        if not self.accelerator.is_main_process:
            return
        if isinstance(self.data, OwnData) and self.texts is not None:
            print_own_data(self.data, self._splits, self.texts, self.max_length)
        n_train, measured = len(self._train), self.validation | self.test
        rows = plan_rows(
            self._given, self.recipe, self.data, self.model, self.steps, n_train, measured
        )
        extra = [f"{count:,} {name}" for name, count in self.extra_examples.items() if count]
        if extra:
            rows.append(("Texts", f"{', '.join(extra)}, which the teachers label"))
        rows.append(("Device", device_summary(self)))
        if self._given.precision == "auto" and self.recipe.precision == "bf16":
            rows.append(("Precision", "bf16, because this GPU has it (precision=fp32 for fp32)"))
        console.facts(rows)
        encoded = {str(self.data.train_split): self.train_set} | measured
        print_unseen(self.data, self._splits, encoded, self.tokenizer, self.max_length)
