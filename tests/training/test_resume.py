"""From which checkpoint a run resumes, and whether it is still the same run."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.recipe import FinetuneRecipe
from sqzb.training.resume import check_folder, check_same_run, find_checkpoint


class Resumed:
    """A job with some inputs."""

    steps = 10

    def __init__(self, folder: Path, hashes: dict[str, str], **settings: Any) -> None:
        self.folder, self._hashes, self.accelerator = folder, hashes, Accelerator(cpu=True)
        self.recipe = FinetuneRecipe.model_validate(settings)

    def input_hashes(self) -> dict[str, str]:
        return self._hashes


def job(folder: Path, hashes: dict[str, str] | None = None, **settings: Any) -> Any:
    return Resumed(folder, {} if hashes is None else hashes, **settings)


def checkpoint(folder: Path, identity: dict[str, str], step: int = 4, **settings: Any) -> Path:
    """A checkpoint that says of what run it is, and holds nothing else."""
    recipe = FinetuneRecipe.model_validate(settings).model_dump(mode="json")
    made = folder / "checkpoints" / f"step-{step:07d}"
    made.mkdir(parents=True)
    state = {"step": step, "tokens": 0, "watch": {}, "recipe": recipe, "identity": identity}
    (made / "trainer.json").write_text(json.dumps(state))
    for name in ("config.json", "optimizer.safetensors"):
        (made / name).touch()
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in made.iterdir()
    }
    (made / "manifest.json").write_text(json.dumps(files))
    return made


def test_an_input_that_is_not_there_yet_is_compared_after_the_preparation(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, {"the set": "a", "the teacher": "b"})
    check_same_run(job(tmp_path, {"the set": "a"}), made, extend=False, prepared=False)
    with pytest.raises(UserError, match="same run: the teacher has changed"):
        check_same_run(job(tmp_path, {"the set": "a"}), made, extend=False, prepared=True)
    with pytest.raises(UserError, match="same run: the set has changed"):
        check_same_run(job(tmp_path, {"the set": "c"}), made, extend=False, prepared=False)
    check_same_run(
        job(tmp_path, {"the set": "a", "the teacher": "b"}), made, extend=False, prepared=True
    )


@pytest.mark.parametrize("prepared", [False, True])
def test_another_recipe_is_another_run(tmp_path: Path, prepared: bool) -> None:
    made = checkpoint(tmp_path, {})
    check_same_run(job(tmp_path, log_every=3), made, extend=False, prepared=prepared)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        check_same_run(job(tmp_path, seed=1), made, extend=False, prepared=prepared)
    with pytest.raises(UserError, match=r"epochs was 10, is 11 \(--extend allows another epochs\)"):
        check_same_run(job(tmp_path, epochs=11), made, extend=False, prepared=prepared)
    check_same_run(job(tmp_path, epochs=11), made, extend=True, prepared=prepared)


def test_a_checkpoint_past_the_last_step_is_refused(tmp_path: Path) -> None:
    check_same_run(job(tmp_path), checkpoint(tmp_path, {}, step=10), extend=False, prepared=False)
    with pytest.raises(
        UserError, match=r"step-0000011 is past the run's last step, 10\. Give more epochs"
    ):
        check_same_run(
            job(tmp_path), checkpoint(tmp_path, {}, step=11), extend=False, prepared=False
        )


def test_the_checkpoint_is_the_newest_or_the_named_one(tmp_path: Path) -> None:
    assert find_checkpoint(job(tmp_path), "auto") is None
    older, newer = checkpoint(tmp_path, {}, step=4), checkpoint(tmp_path, {}, step=5)
    assert find_checkpoint(job(tmp_path), "never") is None
    assert find_checkpoint(job(tmp_path), "auto") == newer
    assert find_checkpoint(job(tmp_path), str(older)) == older
    (older / "manifest.json").unlink()
    with pytest.raises(UserError, match="is damaged"):
        find_checkpoint(job(tmp_path), str(older))


def test_a_folder_in_use_is_refused_unless_its_run_is_resumed(tmp_path: Path) -> None:
    check_folder(tmp_path / "run", "never")
    check_folder(tmp_path / "run", "auto")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    for resume in ("never", "auto"):
        with pytest.raises(UserError, match="is not empty"):
            check_folder(tmp_path / "run", resume)
    (tmp_path / "run" / "recipe.yaml").touch()
    check_folder(tmp_path / "run", "auto")
    with pytest.raises(UserError, match=r"is not empty.*--resume auto"):
        check_folder(tmp_path / "run", "never")
    with pytest.raises(UserError, match="is no checkpoint"):
        check_folder(tmp_path / "run", str(tmp_path))
