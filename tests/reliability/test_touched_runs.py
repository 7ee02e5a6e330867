"""Run folders that somebody touched: a run resumes to the same end, or the reason is given."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import WORDS
from examples import scaled
from glue_runs import finetune, tiny
from pretraining_runs import at, equal, weights
from sqzb.corpus.store import Corpus
from sqzb.errors import UserError
from sqzb.files import locked
from sqzb.model import SqueezeBertForPreTraining
from sqzb.pretraining.job import pretrain
from sqzb.recipe import FinetuneRecipe, PretrainRecipe
from sqzb.tokenizer import train_tokenizer
from stopped_runs import lines

STEPS = 8
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
Touch = Callable[[Path], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a task whose labels follow from nothing, and a finished run on it."""
    folder = tmp_path_factory.mktemp("touched")
    vocabulary = train_tokenizer([" ".join(WORDS)] * 2, 90, lowercase=True)
    SqueezeBertForPreTraining(tiny(vocabulary.get_vocab_size())).save_pretrained(
        folder / "model", vocabulary
    )
    (folder / "MRPC").mkdir()
    draw = np.random.default_rng(1)
    for name in ("train.tsv", "dev.tsv"):
        rows = [f"{draw.integers(2)}\t0\t0\t{draw.choice(WORDS)}\tstone" for _ in range(32)]
        text = "\n".join(["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows])
        (folder / "MRPC" / name).write_text(text + "\n")
    run(folder, folder / "whole")
    # The best model is an early one, which a run without its scores would miss.
    assert lines(folder / "whole")[-1]["of_step"] == 2
    return folder


def run(place: Path, output: Path, resume: str = "never") -> None:
    recipe = FinetuneRecipe(
        task="mrpc",
        model=str(place / "model"),
        output=str(output),
        epochs=2,
        batch=8,
        lr=3e-2,
        max_length=16,
        log_every=1,
        evaluate_every=1,
        keep_best=True,
        keep_checkpoints=9,
    )
    finetune(recipe, place, resume)


def step(folder: Path, number: int) -> Path:
    return folder / "checkpoints" / f"step-{number:07d}"


def stopped(place: Path, folder: Path, at: int = 5) -> Path:
    """Write the run as it was when it was stopped after step `at`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "whole", folder)
    shutil.rmtree(folder / "final")
    for number in range(at + 1, STEPS + 1):
        shutil.rmtree(step(folder, number))
    return folder


def same_end(folder: Path, whole: Path) -> None:
    name = "final/model.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()


# Touches after which a run ends in the same weights. The run was stopped after step 5.


def copied(name: str) -> Touch:
    return lambda folder: shutil.copytree(step(folder, 5), folder / "checkpoints" / name)


def linked(folder: Path) -> None:
    step(folder, 5).rename(folder / "elsewhere")
    step(folder, 5).symlink_to(folder / "elsewhere")


def dangling(folder: Path) -> None:
    step(folder, 6).symlink_to(folder / "nowhere")


def renamed(folder: Path) -> None:
    step(folder, 5).rename(step(folder, 7))


def rewritten(file: str, content: bytes) -> Touch:
    return lambda folder: (step(folder, 5) / file).write_bytes(content)


def log_of(change: Callable[[bytes], bytes]) -> Touch:
    def touch(folder: Path) -> None:
        path = folder / "metrics.jsonl"
        path.write_bytes(change(path.read_bytes()))

    return touch


def of_another_version(folder: Path) -> None:
    (folder / "run.json").write_text('{"format": 99, "versions": []}')


TOUCHES: dict[str, Touch] = {
    "copy .bak": copied("step-0000005.bak"),
    "copy (1)": copied("step-0000005 (1)"),
    "copy with fewer digits": copied("step-5"),
    "copy with more digits": copied("step-00000005"),
    "link": linked,
    "dangling link": dangling,
    "renamed": renamed,
    "manifest is a list": rewritten("manifest.json", b"[1, 2]"),
    "trainer.json is null": rewritten("trainer.json", b"null"),
    "log with a bad byte": log_of(lambda content: b"\xff\xfe{]\n" + content),
    "log of other JSON": log_of(lambda content: b'[]\n{"step": "1"}\n' + content),
    "log without scores": log_of(lambda content: b""),
    "log lost": lambda folder: (folder / "metrics.jsonl").unlink(),
    "log torn": log_of(lambda content: content + b'{"step": 5, "validation_sc'),
    "another version's run.json": of_another_version,
    "recipe.yaml lost": lambda folder: (folder / "recipe.yaml").unlink(),
}


def test_every_touch_alone_leads_to_the_same_end(place: Path) -> None:
    for name, touch in TOUCHES.items():
        folder = stopped(place, place / "touched")
        touch(folder)
        run(place, folder, "auto")
        same_end(folder, place / "whole")
        if not name.startswith("log"):
            assert lines(folder) == lines(place / "whole"), name


@settings(max_examples=scaled(4), suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(TOUCHES)), min_size=2, max_size=4, unique=True))
def test_touches_together_lead_to_the_same_end(place: Path, names: list[str]) -> None:
    folder = stopped(place, place / "touched")
    for name in names:
        try:
            TOUCHES[name](folder)
        except OSError:
            continue  # an earlier touch has taken its file away
    run(place, folder, "auto")
    same_end(folder, place / "whole")


def test_a_run_resumes_without_the_model_that_it_started_from(place: Path) -> None:
    folder, model = stopped(place, place / "alone"), place / "model"
    model.rename(place / "moved")
    try:
        run(place, folder, "auto")
        same_end(folder, place / "whole")
        assert lines(folder) == lines(place / "whole")
        folder = stopped(place, place / "alone")
        run(place, folder, str(step(folder, 4)))
        same_end(folder, place / "whole")
        with pytest.raises(UserError, match="There is no folder"):
            run(place, place / "new", "auto")
        for checkpoint in (folder / "checkpoints").iterdir():
            (checkpoint / "config.json").unlink()
        with pytest.raises(UserError, match="There is no folder"):
            run(place, folder, "auto")
    finally:
        (place / "moved").rename(model)


def test_a_pretraining_resumes_without_the_model_that_it_started_from(
    corpus: Corpus, tmp_path: Path
) -> None:
    recipe = PretrainRecipe.model_validate(
        {
            **{"corpus": str(corpus.folder), "sequence_length": 16, "max_predictions": 3},
            **{"steps": 2, "global_batch": 8, "micro_batch": 8, "checkpoint_every": 1},
            "model": SIZES,
        }
    )
    start = pretrain(at(recipe, tmp_path / "start"))
    second = recipe.model_copy(update={"model": None, "start_from": str(start)})
    whole = pretrain(at(second, tmp_path / "whole"))
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(step(tmp_path / "run", 2))
    shutil.rmtree(tmp_path / "run" / "final")
    start.rename(tmp_path / "moved")
    pretrain(at(second, tmp_path / "run"), "auto")
    assert equal(weights(tmp_path / "run"), weights(whole))


# Copies of checkpoints and of runs


def test_a_users_copy_of_a_checkpoint_stays(place: Path) -> None:
    folder = stopped(place, place / "kept")
    copied("step-0000005.bak")(folder)
    linked(folder)
    run(place, folder, "auto")
    assert (folder / "checkpoints" / "step-0000005.bak" / "trainer.json").exists()
    assert (folder / "elsewhere" / "trainer.json").exists()


def test_two_copies_of_a_run_end_alike(place: Path) -> None:
    one = stopped(place, place / "one")
    other = shutil.copytree(one, place / "other")
    for folder in (one, other):
        run(place, folder, "auto")
        same_end(folder, place / "whole")
        assert lines(folder) == lines(place / "whole")


def test_the_checkpoint_of_another_run_takes_no_runs_place(place: Path) -> None:
    folder = stopped(place, place / "mine")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=r"mine is not empty.*one of the checkpoints in"):
        run(place, folder, str(step(place / "whole", 3)))
    assert sorted(folder.rglob("*")) == before


def test_a_deleted_or_half_written_final_is_written_again(place: Path) -> None:
    folder = place / "final_touched"
    shutil.copytree(place / "whole", folder)
    (folder / "final" / "model.safetensors").write_bytes(b"")
    (folder / "final.partial").mkdir()
    run(place, folder, "auto")
    same_end(folder, place / "whole")
    shutil.rmtree(folder / "final")
    run(place, folder, "auto")
    same_end(folder, place / "whole")


# The start of a run


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_run_killed_while_it_wrote_its_first_file_starts_anew(place: Path, resume: str) -> None:
    folder = place / f"first_{resume}"
    folder.mkdir()
    (folder / "recipe.yaml.partial").write_text("task: mr")
    run(place, folder, resume)
    same_end(folder, place / "whole")


def test_a_run_on_own_data_killed_before_its_recipe_starts_anew(place: Path) -> None:
    folder = place / "known"
    folder.mkdir()
    (folder / "data.json").write_text("{}")
    run(place, folder, "auto")
    same_end(folder, place / "whole")
    (place / "users").mkdir()
    (place / "users" / "notes.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        run(place, place / "users", "auto")


def test_a_folder_that_another_run_used_meanwhile_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run began after the first look at the folder, and has ended before the lock."""
    folder = place / "meanwhile"
    monkeypatch.setattr(
        "sqzb.finetuning.job.check_folder", lambda *_: shutil.copytree(place / "whole", folder)
    )
    before = (place / "whole" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="not empty"):
        run(place, folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_the_lock_of_a_dead_process_is_none(place: Path) -> None:
    folder = stopped(place, place / "locked")
    child = os.fork()
    if child == 0:
        with locked(folder):
            os._exit(0)  # without releasing it
    os.waitpid(child, 0)
    run(place, folder, "auto")
    same_end(folder, place / "whole")


def test_a_refused_run_prints_no_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped(place, place / "refused")
    content = json.loads((step(folder, 5) / "trainer.json").read_text())
    assert content["results"]["scores"].keys() == {"1", "2", "3", "4"}
    recipe = FinetuneRecipe(
        task="mrpc", model=str(place / "model"), output=str(folder), max_length=16, epochs=2
    )
    with pytest.raises(UserError, match="same run"):
        finetune(recipe, place, "auto")
    assert "steps =" not in capsys.readouterr().out
