"""The interface of a job: the part of a run in which pretraining and finetuning differ.

The loop calls the job; a job never calls the loop.
"""

from collections.abc import Mapping, Sequence
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
    """A training job, whose steps count from 0.

    A constructor makes the quick checks; long computations are left to `prepare`.
    """

    @property
    def title(self) -> str:
        """The title of the progress bar."""

    @property
    def losses(self) -> Sequence[str]:
        """Names of the losses; a loss without labels in a step is logged as null."""

    @property
    def recipe(self) -> TrainingRecipe:
        """The recipe, with all values filled in once `prepare` has returned."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""

    @property
    def accelerator(self) -> Accelerator:
        """The devices and processes of the run."""

    @property
    def model(self) -> StoredModel:
        """The model that is trained and saved."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that is saved with the model."""

    @property
    def graphs(self) -> bool:
        """Whether forward and backward are CUDA graphs."""

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""

    @property
    def checkpoint_bytes(self) -> int:
        """The bytes of a checkpoint."""

    # Before the first step

    def print_plan(self) -> None:
        """Print every number that follows from the recipe."""

    def prepare(self) -> None:
        """Do the work that may take hours, and print the part of the plan that depends on it.

        The folder is locked by then, and a signal ends the preparation at once. Results of long
        computations are kept in files, which the next start of the command reuses.
        """

    def input_hashes(self) -> dict[str, str]:
        """Return, by name, a hash of each input beside the recipe on which the run depends.

        Before `prepare`, hashes that depend on it are absent.
        """

    def make_engine(self) -> Engine:
        """Return the model with its optimizer; all processes take part."""

    def on_restore(self, step: int, results: Mapping[str, Any]) -> None:
        """Set the job to the state after `step` steps; the model has the checkpoint's weights.

        results: as `results` returned them when the checkpoint was written; empty in a checkpoint
        of an older version.
        """

    # A step

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches of a step; called in another thread."""

    def micro_batch_numbers(self) -> Sequence[int]:
        """Return the numbers of this process's micro-batches among those of all processes."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""

    def forward_flops(self, batch: MicroBatch) -> int:
        """Return the FLOPs of the model's forward over a micro-batch, padding included."""

    def example_ids(self, step: int) -> list[Any]:
        """Return the examples of a step, by ids with which the user can look them up."""

    def progress_text(self, result: StepResult) -> str:
        """Return the figures that the progress bar shows after a step."""

    # Between steps; `step` is the number of finished steps

    def is_finished(self, step: int) -> bool:
        """Return whether the run has no step left."""

    def checkpoint_due(self, step: int) -> bool:
        """Return whether a checkpoint is to be written."""

    def needed_checkpoint(self, step: int) -> int | None:
        """Return the step of an older checkpoint that a run resumed at `step` needs, or None."""

    def check_inputs(self) -> None:
        """Wait for checks of the inputs that run beside the training; called before each save.

        Raises:
            UserError: an input is damaged.
        """

    def results(self) -> dict[str, Any]:
        """Return the results so far that a resumed run needs, for the checkpoint, as JSON."""

    @property
    def needs_older_checkpoints(self) -> bool:
        """Whether `needed_checkpoint` may return a step."""

    def evaluation_due(self, step: int) -> bool:
        """Return whether the model is to be evaluated."""

    def evaluate(self, engine: Engine, step: int) -> dict[str, float]:
        """Return the figures to log, the same in every process."""

    # After the last step

    def finish(self, engine: Engine, log: RunLog, step: int) -> None:
        """Write final/, then evaluate, log and report it."""


def device_summary(job: Job) -> str:
    """Return text such as "on cuda in bf16, compiled, by kernels"."""
    compiled = ", compiled" if job.recipe.compile else ""
    kernels = ", by kernels" if by_kernels(job.model) else ""
    graphs = ", in CUDA graphs" if job.graphs else ""
    return f"on {job.accelerator.device} in {job.recipe.precision}{compiled}{kernels}{graphs}"
