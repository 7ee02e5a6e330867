"""Safety of a run: the lock on its folder, the space on its disk, explained errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from torch.distributed import DistError

from sqzb import console
from sqzb.errors import WRITING, PeerLost, UserError, explain
from sqzb.files import check_output_folder, locked
from sqzb.training import checkpoints
from sqzb.training.guards import check_space
from sqzb.training.job import Job
from sqzb.training.processes import any_process, warn
from sqzb.training.resume import check_folder


@contextmanager
def claimed_folder(folder: Path, accelerator: Accelerator, resume: str) -> Iterator[None]:
    """Make and lock the folder while the block runs; remove a new folder that stays empty.

    resume: the value of --resume. The folder is checked against it once more, because another run
    may have used the folder since the first check.

    Raises:
        UserError: another run has locked or used the folder, or the first process cannot write
            there; all processes raise it.
    """
    if not accelerator.is_main_process:
        if any_process(accelerator, False):
            raise UserError(f"Another run is using {folder}, or the folder cannot be written.")
        yield
        return
    is_new = not folder.exists()
    try:
        check_output_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        any_process(accelerator, True)  # the others wait for the answer
        raise UserError(explain(error)) from error
    with locked(folder) as ours:
        refusal = None if ours else _in_use(folder)
        try:
            check_folder(folder, resume)
        except UserError as error:
            refusal = refusal or error
        if any_process(accelerator, refusal is not None):
            raise refusal or _in_use(folder)
        try:
            yield
        finally:
            if is_new and not any(folder.iterdir()):
                folder.rmdir()


def _in_use(folder: Path) -> UserError:
    return UserError(f"Another run is using {folder}. Wait for it, or give another --output.")


def check_disk(job: Job) -> None:
    """Check that the disk has space for every checkpoint that the run will keep, and for the model.

    Raises:
        UserError: the first process finds that the disk is too small; all processes raise it.
    """
    recipe = job.recipe
    kept = recipe.keep_checkpoints
    if recipe.keep_every is not None:
        kept += job.steps // recipe.keep_every
    if job.needs_older_checkpoints:
        kept *= 2
    kept += 1  # the checkpoint that is being written

    refusal = None
    if job.accelerator.is_main_process:
        used = sum(file.stat().st_size for file in job.folder.rglob("*") if file.is_file())
        need = max(0, job.checkpoint_bytes * (kept + 1) - used)
        try:
            check_space(job.folder, need, f"{kept} checkpoints and the model")
        except UserError as error:
            refusal = error
    if any_process(job.accelerator, refusal is not None):
        raise refusal or UserError(f"The disk of {job.folder} is too small.")


@contextmanager
def explained_errors(job: Job) -> Iterator[None]:
    """Turn the errors of writing and of a lost process into messages with a remedy.

    Raises:
        UserError: a file cannot be written, because the disk is full or the like.
        PeerLost: another process of the run has ended or does not answer.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in WRITING:
            raise
        last = checkpoints.newest(job.folder, lambda message: warn(job.accelerator, message))
        raise UserError(
            f"{explain(error)} A checkpoint takes {console.size(job.checkpoint_bytes)}. "
            f"Last intact checkpoint: {last or 'none'}. Resume with --resume auto."
        ) from error
    except RuntimeError as error:
        if job.accelerator.num_processes == 1 or not _is_about_peers(error):
            raise
        raise PeerLost(
            f"Process {job.accelerator.process_index} stopped: another process of the run "
            f"has ended or does not respond ({str(error).splitlines()[0]}). Start all of them "
            "again with --resume auto."
        ) from error


def _is_about_peers(error: RuntimeError) -> bool:
    """Return whether the error is about other processes; some of gloo's and NCCL's have no type."""
    return isinstance(error, DistError) or any(
        name in str(error).lower() for name in ("gloo", "nccl")
    )
