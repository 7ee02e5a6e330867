"""Pretraining as a job of the training loop: from a corpus and a recipe to a run folder."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.corpus.store import MANIFEST, Corpus
from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.model.costs import costs, costs_of_rows, total
from sqzb.model.kernels.choice import choose_kernels
from sqzb.model.layers import by_kernels
from sqzb.model.open import ModelFolder
from sqzb.plan.report import rows_of
from sqzb.plan.workloads import (
    Planned,
    epochs_text,
    epochs_warnings,
    optimizer_text,
    pretraining_workload,
)
from sqzb.pretraining.auto_micro_batch import auto_micro_batch
from sqzb.pretraining.batches import Examples, batch_layout
from sqzb.pretraining.card import card_facts
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout, evaluate_yardstick
from sqzb.pretraining.report import print_heldout_report, print_next_commands
from sqzb.pretraining.start import build_model
from sqzb.pretraining.teacher import build_distillation_model
from sqzb.recipe import PretrainRecipe
from sqzb.training import checkpoints, loop
from sqzb.training.averaging import WeightAverage
from sqzb.training.card import write_card
from sqzb.training.engine import (
    Engine,
    MicroBatch,
    StepResult,
    chosen_precision,
    start_accelerator,
)
from sqzb.training.graphs import choose_graphs
from sqzb.training.job import device_summary
from sqzb.training.optimizers import make_optimizer, schedule_of
from sqzb.training.resume import NEVER, check_folder, start_or_checkpoint
from sqzb.training.run_folder import RunLog


def pretrain(
    recipe: PretrainRecipe, resume: str = NEVER, extend: bool = False, dry_run: bool = False
) -> Path:
    """Run the recipe, and return the run's folder.

    resume: "never", "auto" or the path of a checkpoint.
    extend: allow another number of steps than that of the resumed run.
    dry_run: print the plan and write nothing.

    Raises:
        UserError: the recipe has no output folder.
    """
    if recipe.output is None:
        raise UserError(
            "The run has no folder. Give --output DIR, or set the key output in the recipe."
        )
    folder = Path(recipe.output)
    if not dry_run:
        check_folder(folder, resume)
    start = None
    if recipe.start_from is not None:
        start = start_or_checkpoint(recipe.start_from, folder, resume)
    job = Pretraining(recipe, folder, start)
    if dry_run:
        job.print_plan()
        job.prepare()
    else:
        loop.run(job, resume, extend)
    return folder


class Pretraining:
    """The job of learning masked tokens and sentence order from a prepared corpus."""

    title = "Pretraining"
    losses = tuple(LABELS)
    needs_older_checkpoints = False

    def __init__(
        self, recipe: PretrainRecipe, folder: Path, start: ModelFolder | None = None
    ) -> None:
        self.folder = folder
        recipe = recipe.model_copy(update={"precision": chosen_precision(recipe.precision)})
        self.accelerator = start_accelerator(recipe.precision)
        self.corpus = Corpus(recipe.corpus)
        self.tokenizer = self.corpus.tokenizer
        self.model = build_model(recipe, self.corpus, start)
        # Both are chosen first, because they change how large a micro-batch fits.
        choose_kernels(recipe, self.model, self.accelerator.device)
        self.model.fused_loss = recipe.fused_loss
        self.distillation_model = build_distillation_model(
            recipe, self.corpus, self.model, self.accelerator.device
        )
        measured = by_kernels(self.model) and self.distillation_model is None
        self.graphs = choose_graphs(recipe.graphs, self.accelerator, measured)
        self.steps = recipe.steps
        work = pretraining_workload(recipe, self.model.config)
        self.checkpoint_bytes = checkpoints.size(self.model, work.moments + work.averages)

        # The recipe with all values filled in: the vocabulary's size, and after `prepare` the
        # micro-batch.
        config = self.model.config if recipe.model is not None else None
        self.recipe = recipe.model_copy(update={"model": config})
        # `auto` is 1 until `prepare`, so that steps and corpus are checked before the model runs.
        self._divide(recipe.micro_batch if isinstance(recipe.micro_batch, int) else 1)

    def _divide(self, micro_batch: int) -> None:
        """Divide each step into micro-batches."""
        self.layout = batch_layout(self.recipe, micro_batch, self.accelerator)
        self.examples = Examples(self.recipe, self.corpus, self.layout, self.graphs)

    def prepare(self) -> None:
        """Choose the micro-batch, if the recipe leaves it open."""
        if not isinstance(self.recipe.micro_batch, int):
            trained = self.distillation_model or self.model
            micro_batch = auto_micro_batch(
                self.recipe, trained, self.accelerator, self.folder, self.graphs
            )
            self.recipe = self.recipe.model_copy(update={"micro_batch": micro_batch})
            self._divide(micro_batch)
            if self.accelerator.is_main_process:
                console.facts([self._plan_of_batch()])

    def input_hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each input of the run, by its name in messages."""
        folder = self.corpus.folder
        hashes = {
            "the corpus": sha256(folder / MANIFEST),
            "the vocabulary": sha256(folder / "vocab.txt"),
        }
        if self.distillation_model is not None:
            hashes["the teacher"] = self.distillation_model.teacher.sha256
        return hashes

    def make_engine(self) -> Engine:
        """Return the engine that trains the model, with the recipe's optimizer."""
        settings = self.recipe.optimizer
        if not self.recipe.sop:
            # Without a gradient, LAMB's trust ratio would scale the weight decay alone up to a step
            # of the whole learning rate.
            for unused in (self.model.sop, self.model.transformer.pooler):
                unused.requires_grad_(False)
        optimizer = make_optimizer(settings, self.model)
        trained = self.distillation_model or self.model
        compile, clip_norm = self.recipe.compile, settings.clip_norm
        engine = Engine(
            self.accelerator, trained, optimizer, LABELS, clip_norm, compile, self.graphs
        )
        engine.copy_ahead = self.recipe.copy_ahead
        averaging = self.recipe.averaging
        if averaging.share:
            engine.average = WeightAverage(self.model, self.steps, averaging.share, averaging.every)
        return engine

    def on_restore(self, step: int, results: Mapping[str, Any]) -> None:
        """Do nothing, because the examples of a step are a function of its number."""

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches of a step."""
        return self.examples.of_step(step)

    def micro_batch_numbers(self) -> Sequence[int]:
        """Return the numbers of this process's micro-batches in a step."""
        return self.layout.micro_batches

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return schedule_of(self.recipe.optimizer).rate(step, self.steps)

    def forward_flops(self, batch: MicroBatch) -> int:
        """Return the floating-point operations of a forward on the micro-batch."""
        ids, positions, config = batch["input_ids"], batch["mlm_positions"], self.model.config
        if ids.ndim == 1:
            lengths = batch["attention_mask"].numpy().sum(1)
            pairs = int((lengths * lengths).sum())
            n, predicted = len(lengths), len(positions)
            return total(costs_of_rows(config, n, len(ids), pairs, predicted, labels=2)).flops
        rows, length = ids.shape
        return total(costs(config, rows, length, positions.shape[1], labels=2)).flops

    def example_ids(self, step: int) -> list[Any]:
        """Return (epoch, chunk) of each sequence."""
        epochs, chunks = self.examples.chunks_of_step(step)
        return list(zip(epochs.tolist(), chunks.tolist(), strict=True))

    def progress_text(self, result: StepResult) -> str:
        """Return the accuracies of a step, for the progress bar."""
        return "  ".join(
            f"{name} {value:.1%}" for name, value in result.items() if name.endswith("_accuracy")
        )

    def is_finished(self, step: int) -> bool:
        """Return whether the run ends after `step` steps."""
        return step >= self.steps

    def checkpoint_due(self, step: int) -> bool:
        """Return whether a checkpoint is written after this step."""
        return step % self.recipe.checkpoint_every == 0

    def needed_checkpoint(self, step: int) -> int | None:
        """Return None: no checkpoint but the last is needed."""
        return None

    def check_inputs(self) -> None:
        """Wait until the corpus is compared with its hashes.

        Raises:
            UserError: files of the corpus are damaged.
        """
        self.examples.check_corpus()

    def results(self) -> dict[str, Any]:
        """Return nothing, because no result decides how training continues."""
        return {}

    def evaluation_due(self, step: int) -> bool:
        """Return whether the model is evaluated after this step; `finish` evaluates the last."""
        return step % self.recipe.evaluate_every == 0 and step < self.steps

    def evaluate(self, engine: Engine, step: int) -> dict[str, float]:
        """Return the figures on a part of the held-out examples."""
        at_most = self.recipe.evaluate_sequences
        figures = evaluate_heldout(engine, self.examples, at_most)
        return figures | self._evaluate_average(engine, at_most)

    def _evaluate_average(self, engine: Engine, at_most: int | None) -> dict[str, float]:
        """Return the yardstick of the averaged weights; nothing if there are none."""
        if engine.average is None or not engine.average.count:
            return {}
        with engine.average.in_use():
            figures = evaluate_yardstick(engine, self.examples, at_most)
        return {f"heldout_{name}_averaged": value for name, value in figures.items()}

    def finish(self, engine: Engine, log: RunLog, step: int) -> None:
        """Write final/, then evaluate it on all held-out examples."""
        main = self.accelerator.is_main_process
        is_averaged = self.recipe.averaging.final
        with contextlib.ExitStack() as stack:
            if engine.average is not None and is_averaged:
                stack.enter_context(engine.average.in_use())
            if main:
                checkpoints.write_final(self.folder, self.model, self.tokenizer, self.recipe)
            figures = evaluate_heldout(engine, self.examples, None)
        if not is_averaged:
            figures |= self._evaluate_average(engine, None)
        if figures and not log.evaluated(step):
            log.log(step, **figures)
        if main:
            facts = card_facts(self.recipe, self.corpus, self.input_hashes(), figures)
            write_card(self.folder, self.recipe, facts)
            print_heldout_report(f"Pretrained {self.folder}", figures, self.corpus)
            positions = self.model.config.max_position_embeddings
            print_next_commands(self.folder, self.recipe, self.corpus, positions)

    def print_plan(self) -> None:
        """Print every number that follows from the recipe, before anything runs."""
        if not self.accelerator.is_main_process:
            return
        recipe, chunks = self.recipe, len(self.examples.train)
        sequences = recipe.steps * recipe.global_batch
        planned = Planned(
            pretraining_workload(recipe, self.model.config),
            f"from {recipe.start_from}" if recipe.start_from else "from scratch",
            f"{epochs_text(sequences, chunks)}; {len(self.examples.heldout):,} held out",
            optimizer_text(recipe),
            [],
            epochs_warnings(sequences, chunks),
        )
        rows = [*rows_of(planned), ("Device", device_summary(self))]
        if isinstance(recipe.micro_batch, int):
            rows.append(self._plan_of_batch())
        if self.distillation_model is not None:
            settings, teacher = recipe.distillation, self.distillation_model.teacher
            rows.append(
                (
                    "Teacher",
                    f"{settings.teacher}, {teacher.parameters:,} parameters: alpha "
                    f"{settings.alpha:g}, temperature {settings.temperature:g}",
                )
            )
        console.facts(rows)
        for warning in planned.warnings:
            console.warn(warning)

    def _plan_of_batch(self) -> tuple[str, str]:
        layout = self.layout
        return (
            "Batch",
            f"{layout.global_batch:,} = {layout.micro_batch} x {len(layout.micro_batches)} "
            f"accumulation x {console.counted(layout.processes, 'process', 'processes')}"
            f"{', without padding' if self.recipe.unpad else ''}",
        )
