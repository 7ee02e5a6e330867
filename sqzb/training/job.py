"""The job of a run: what pretraining and finetuning bring to the training loop.

The loop calls the job; a job never calls the loop.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from tokenizers import Tokenizer

from sqzb.model.checkpoint import StoredModel
from sqzb.model.layers import by_kernels
from sqzb.recipe import TrainingRecipe
from sqzb.training.engine import Engine, MicroBatch, StepResult
from sqzb.training.run_folder import RunLog


class Job(Protocol):
    """A training job. Steps count from 0.

    A constructor checks what can be checked quickly; what takes long is left to `prepare`.
    """

    @property
    def title(self) -> str:
        """The title of the progress bar."""

    @property
    def losses(self) -> Sequence[str]:
        """Names of the losses; the figures of a loss without labels in a step are logged as null."""

    @property
    def recipe(self) -> TrainingRecipe:
        """The recipe, resolved once `prepare` is through."""

    @property
    def folder(self) -> Path: ...

    @property
    def accelerator(self) -> Accelerator: ...

    @property
    def model(self) -> StoredModel:
        """The model that is trained and saved."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def graphs(self) -> bool:
        """Whether forward and backward are CUDA graphs."""

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""

    # Before the first step

    def prepare(self) -> None:
        """Do what may take hours, and print the part of the plan that was not known before.

        The folder is claimed by then, and a signal ends the preparation at once: what takes long is
        kept in files, so that the next start of the command finds it.
        """

    def input_hashes(self) -> dict[str, str]:
        """Return, by name, a hash of each input beside the recipe on which the run depends.

        Before `prepare` the hashes that depend on it are absent.
        """

    def make_engine(self) -> Engine:
        """Return the model with its optimizer; here the processes meet."""

    def on_restore(self, step: int) -> None:
        """Follow the run to a checkpoint after `step` steps, whose weights are in the model."""

    # A step

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches of a step; called in another thread."""

    def micro_batch_numbers(self) -> Sequence[int]:
        """Return the numbers of this process's micro-batches among those of all processes."""

    def learning_rate(self, step: int) -> float: ...

    def forward_flops(self, batch: MicroBatch) -> int:
        """Return the FLOPs of the model's forward over a micro-batch, padding included."""

    def example_ids(self, step: int) -> list[Any]:
        """Return the examples of a step, in a form in which they can be looked up."""

    def progress_text(self, result: StepResult) -> str:
        """Return the figures that the progress bar shows after a step."""

    # Between steps; `step` is the number of finished steps

    def is_finished(self, step: int) -> bool: ...

    def checkpoint_due(self, step: int) -> bool: ...

    def needed_checkpoint(self, step: int) -> int | None:
        """Return the step of an older checkpoint that a run resumed at `step` will need, or None."""

    @property
    def needs_older_checkpoints(self) -> bool:
        """Whether `needed_checkpoint` may return a step."""

    def evaluation_due(self, step: int) -> bool: ...

    def evaluate(self, engine: Engine, step: int) -> dict[str, float]:
        """Return the figures to log, the same in every process."""

    # After the last step

    def finish(self, engine: Engine, log: RunLog, step: int) -> None:
        """Write final/, then evaluate, log and report it."""


def device_summary(job: Job) -> str:
    """Return where and how the model is computed, as "on cuda in bf16, compiled, by kernels"."""
    compiled = ", compiled" if job.recipe.compile else ""
    kernels = ", by kernels" if by_kernels(job.model) else ""
    graphs = ", in CUDA graphs" if job.graphs else ""
    return f"on {job.accelerator.device} in {job.recipe.precision}{compiled}{kernels}{graphs}"
