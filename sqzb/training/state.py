"""The state that changes from step to step, and its form in a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sqzb.training import checkpoints
from sqzb.training.engine import Engine
from sqzb.training.guards import LossMonitor
from sqzb.training.job import Job


@dataclass
class TrainingState:
    """The state of a run beside weights and moments.

    step: number of finished steps.
    tokens: tokens that all processes have trained on, without padding.
    """

    monitor: LossMonitor
    step: int = 0
    tokens: int = 0


def save(job: Job, engine: Engine, state: TrainingState) -> None:
    """Write the checkpoint of this step in the first process, and remove unneeded checkpoints.

    Raises:
        UserError: an input of the run is damaged.
    """
    if not job.accelerator.is_main_process:
        return
    job.check_inputs()  # no checkpoint holds what was learnt from damaged inputs
    content = {
        "tokens": state.tokens,
        "seed": job.recipe.seed,
        "watch": state.monitor.state(),
        "recipe": job.recipe.model_dump(mode="json"),
        "identity": job.input_hashes(),
        "results": job.results(),
    }
    average: dict[str, Tensor] = {}
    if engine.average is not None:
        content["averaged"], average = engine.average.count, engine.average.state()
    folder, step, recipe = job.folder, state.step, job.recipe
    checkpoints.save(folder, step, job.model, engine.optimizer, job.tokenizer, content, average)
    checkpoints.remove_old(
        folder, step, recipe.keep_checkpoints, recipe.keep_every, job.needed_checkpoint
    )


def restore(checkpoint: Path, job: Job, engine: Engine, state: TrainingState) -> None:
    """Load an undamaged checkpoint into model, optimizer, state and job."""
    content = checkpoints.read_state(checkpoint)
    checkpoints.load(checkpoint, job.model, engine.optimizer)
    state.step, state.tokens = content["step"], content["tokens"]
    state.monitor.restore(content["watch"])
    if engine.average is not None:
        average = checkpoints.load_average(checkpoint)
        engine.average.restore(state.step, content.get("averaged", 0), average)
    job.on_restore(state.step, content.get("results", {}))
