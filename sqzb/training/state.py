"""What changes from step to step, and how a checkpoint keeps it."""

from dataclasses import dataclass
from pathlib import Path

from sqzb.training import checkpoints
from sqzb.training.engine import Engine
from sqzb.training.guards import LossMonitor
from sqzb.training.job import Job


@dataclass
class TrainingState:
    """The state of a run beside weights and moments."""

    monitor: LossMonitor
    step: int = 0  # number of finished steps
    tokens: int = 0  # trained on by all processes, padding left out


def save(job: Job, engine: Engine, state: TrainingState) -> None:
    """Write the checkpoint of this step in the first process; remove those that nothing needs."""
    if not job.accelerator.is_main_process:
        return
    content = {
        "tokens": state.tokens,
        "seed": job.recipe.seed,
        "watch": state.monitor.state(),
        "recipe": job.recipe.model_dump(mode="json"),
        "identity": job.input_hashes(),
    }
    checkpoints.save(
        job.folder,
        state.step,
        job.model,
        engine.optimizer,
        job.tokenizer,
        content,
        job.recipe.keep_checkpoints,
        job.recipe.keep_every,
        job.needed_checkpoint,
    )


def restore(checkpoint: Path, job: Job, engine: Engine, state: TrainingState) -> None:
    """Put a checkpoint that is known to be whole into model, optimizer, state and job."""
    content = checkpoints.read_state(checkpoint)
    checkpoints.load(checkpoint, job.model, engine.optimizer)
    state.step, state.tokens = content["step"], content["tokens"]
    state.monitor.restore(content["watch"])
    job.on_restore(state.step)
