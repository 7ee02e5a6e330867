"""The choice of the checkpoint to resume from, and the check that the run is the same."""

from pathlib import Path
from typing import Any

from sqzb.errors import UserError
from sqzb.files import ASIDE
from sqzb.model.open import ModelFolder, model_folder
from sqzb.recipe import REMOVED, flat, without_removed
from sqzb.training import checkpoints
from sqzb.training.job import Job
from sqzb.training.processes import warn
from sqzb.training.run_folder import CHECKPOINTS, KNOWN, RECIPE, refuse_used

NEVER, AUTO = "never", "auto"  # the values of --resume, beside the path of a checkpoint
# The content of trainer.json that a resumed run needs, by its type.
STATE: dict[str, type] = {
    "step": int,
    "tokens": int,
    "watch": dict,
    "recipe": dict,
    "identity": dict,
}


def check_folder(folder: Path, resume: str) -> None:
    """Check the run's folder against `--resume`.

    Raises:
        UserError: the folder is in use and the run is not resumed, or the path is no checkpoint.
    """
    if resume == AUTO:
        if not _is_begun(folder):
            refuse_used(folder)
        return
    if resume == NEVER:
        refuse_used(folder, ", --resume auto to resume its run")
        return

    checkpoint = Path(resume)
    if not (checkpoint / checkpoints.TRAINER).exists():
        raise UserError(
            f"{resume} is no checkpoint. Give --resume auto, or a folder such as "
            "RUN/checkpoints/step-0001000."
        )
    # The run of a checkpoint from elsewhere would take the place of the run in the folder.
    if checkpoint.resolve().parent != (folder / CHECKPOINTS).resolve():
        refuse_used(folder, f", one of the checkpoints in {folder / CHECKPOINTS}")


def _is_begun(folder: Path) -> bool:
    """Return whether the folder holds a run, or the files of one that was killed before a step."""
    if (folder / RECIPE).exists() or checkpoints.any_of(folder):
        return True
    # data.json is written before recipe.yaml, whose values may take hours to find.
    return folder.is_dir() and all(
        path.name == KNOWN or path.suffix == ASIDE for path in folder.iterdir()
    )


def start_or_checkpoint(start: str, folder: Path, resume: str) -> ModelFolder:
    """Return the model that a run starts from; if it is gone, the checkpoint to resume from.

    start: path or Hub id of the model. A checkpoint has all of a run's weights, so a resumed run
    needs only the sizes and the tokenizer.

    Raises:
        UserError: there is no such model, and no undamaged checkpoint in its place.
    """
    try:
        return model_folder(start)
    except UserError:
        checkpoint = None
        if resume == AUTO:
            checkpoint = checkpoints.newest(folder, lambda message: None)  # warned of later
        elif resume != NEVER and not checkpoints.damage(Path(resume)):
            checkpoint = Path(resume)
        if checkpoint is None:
            raise
        return ModelFolder(checkpoint)


def find_checkpoint(job: Job, resume: str) -> Path | None:
    """Return the checkpoint to resume from; None to start anew.

    The files of the checkpoint have been compared with their hashes.

    Raises:
        UserError: the checkpoint that `resume` names is damaged.
    """
    if resume == NEVER:
        return None
    if resume == AUTO:
        return checkpoints.newest(job.folder, lambda message: warn(job.accelerator, message))
    checkpoints.check_whole(Path(resume))
    return Path(resume)


def check_same_run(job: Job, checkpoint: Path, extend: bool, prepared: bool) -> None:
    """Compare the job's recipe and inputs with those of the checkpoint.

    extend: the run may have another length.
    prepared: `job.prepare` has returned; before that, inputs whose hashes the job lacks are not
    compared.

    Raises:
        UserError: the run would become another one, or the checkpoint is past its last step or of
            another version.
    """
    state = checkpoints.read_state(checkpoint)
    lacking = [key for key, kind in STATE.items() if not isinstance(state.get(key), kind)]
    if lacking:
        raise UserError(
            f"{checkpoint} was written by another version of sqzb: its {checkpoints.TRAINER} has "
            f"no {', '.join(lacking)}. Resume with that version, or give another --output."
        )
    differing = _differing_keys(job, state, extend)
    length = job.recipe.length
    changed = _differing_inputs(job, state, prepared)
    for key, (was, now) in differing.items():
        changed.append(f"{key} was {was}, is {'no longer supported' if key in REMOVED else now}")
    if changed:
        hint = f" (--extend allows another {length})" if length in differing else ""
        raise UserError(
            f"The run cannot resume from {checkpoint}, because it would not be the same run: "
            f"{'; '.join(changed)}{hint}. Restore these, or give another --output."
        )
    if state["step"] > job.steps:
        raise UserError(
            f"{checkpoint} is past the run's last step, {job.steps:,}. Give more {length}, or "
            "resume from an earlier checkpoint (--resume PATH)."
        )


def _differing_inputs(job: Job, state: dict[str, Any], prepared: bool) -> list[str]:
    hashes = job.input_hashes()
    differing = []
    for name, value in state["identity"].items():
        known = prepared or name in hashes
        if known and hashes.get(name) != value:
            differing.append(f"{name} has changed")
    return differing


def _differing_keys(job: Job, state: dict[str, Any], extend: bool) -> dict[str, tuple[Any, Any]]:
    """Return, by recipe key, the values (in the checkpoint, now) that differ and may not."""
    recipe = job.recipe
    may_change = recipe.may_change | ({recipe.length} if extend else set())
    # A key that did not exist in the run's version had the effect of today's default.
    before = flat(type(recipe)().model_dump(mode="json")) | without_removed(flat(state["recipe"]))
    now = flat(recipe.model_dump(mode="json"))

    differing = {}
    for key in before | now:
        if not {key, key.split(".")[0]} & may_change and before.get(key) != now.get(key):
            differing[key] = before.get(key), now.get(key)
    return differing
