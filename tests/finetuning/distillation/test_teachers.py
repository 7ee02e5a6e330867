"""Distillation: the student learns from what teachers say of each example, which is computed
once, whatever happens.
"""

import gc
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoTokenizer
from transformers import SqueezeBertForSequenceClassification as TransformersClassifier
from typer.testing import CliRunner

import fork_server
from glue_runs import finetune, tiny
from sqzb.cli import app
from sqzb.errors import UserError
from sqzb.finetuning import finetuned
from sqzb.finetuning.distillation import lessons
from sqzb.finetuning.distillation import teachers as distillation
from sqzb.finetuning.distillation.teachers import DistillationModel
from sqzb.finetuning.job import Finetuning
from sqzb.glue.data import load_split, open_task
from sqzb.glue.tasks import TASKS, task
from sqzb.model import SqueezeBertForPreTraining
from sqzb.recipe import FinetuneRecipe, dump_recipe, load_recipe
from sqzb.tokenizer import load_tokenizer
from sqzb.training.run_folder import recipe_of
from stopped_runs import lines, write_task, write_worded

MRPC, STSB = task("mrpc"), task("stsb")
N, CHUNK = 40, 16
MakeTeacher = Callable[..., Path]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "CHUNK", CHUNK)


@pytest.fixture
def start(tmp_path: Path, vocabulary: Path) -> Path:
    """A pretrained model."""
    torch.manual_seed(1)
    tokenizer = load_tokenizer(vocabulary)
    SqueezeBertForPreTraining(tiny(tokenizer.get_vocab_size())).save_pretrained(
        tmp_path / "start", tokenizer
    )
    return tmp_path / "start"


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """MRPC, and an STS-B of the same texts."""
    write_worded(tmp_path, N)
    return tmp_path


def recipe(
    start: Path, *teachers: Path, output: str = "run", name: str = "mrpc", **changes: Any
) -> FinetuneRecipe:
    ours = {"teacher": [str(path) for path in teachers], "cache": str(start.parent / "cache")}
    ours |= {key: changes.pop(key) for key in ("temperature", "alpha", "cache") if key in changes}
    settings = {"task": name, "epochs": 2, "batch": 7, "lr": 1e-2, "max_length": 16, "log_every": 1}
    return FinetuneRecipe.model_validate(
        settings
        | {"model": str(start), "output": str(start.parent / output), "distillation": ours}
        | changes
    )


def prepared(wanted: FinetuneRecipe, glue: Path) -> Finetuning:
    assert wanted.task is not None and wanted.output is not None
    made = Finetuning(wanted, open_task(wanted.task, glue), Path(wanted.output))
    made.prepare()
    return made


def logits_of(wanted: FinetuneRecipe, glue: Path) -> NDArray[np.float32]:
    found = prepared(wanted, glue).teacher_logits
    assert found is not None
    return found


def relabel(folder: Path, labels: tuple[str, ...], order: list[int]) -> None:
    """Put a saved classifier's labels into another order, with their rows of the head."""
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: n for n, name in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    change(folder, lambda name, tensor: tensor[order] if name.startswith("classifier") else tensor)


def change(folder: Path, function: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed = {name: function(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def only_cache(start: Path) -> Path:
    (folder,) = (start.parent / "cache").iterdir()
    return folder


# What the teacher says


def test_the_logits_are_those_that_transformers_has(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    """By its own tokenizer, whose capitals the student does not know; row i is training
    example i.
    """
    folder = teacher("teacher")
    path = glue / "MRPC" / "train.tsv"
    path.write_text(path.read_text().replace("light w", "Light w"))
    found = logits_of(recipe(start, folder), glue)
    model, tokenizer = (
        TransformersClassifier.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    examples = load_split(MRPC, "train", glue)
    with torch.no_grad():
        due = [
            model(**tokenizer(e.text_a, e.text_b, return_tensors="pt")).logits[0].numpy()
            for e in examples
        ]
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-4)
    assert found.std(0).min() > 0.05  # that an example in another's row would be seen
    parts = [f"{n:05d}.{ending}" for n in range(3) for ending in ("safetensors", "sha256")]
    assert sorted(files(only_cache(start))) == [*parts, "about.json"]
    about = json.loads((only_cache(start) / "about.json").read_text())
    assert about["teacher"] == str(folder) and about["task"] == "mrpc" and about["examples"] == N


def test_labels_are_found_by_name(start: Path, teacher: MakeTeacher, glue: Path) -> None:
    due = logits_of(recipe(start, teacher("one")), glue)
    relabel(teacher("other"), MRPC.labels[::-1], [1, 0])
    found = logits_of(recipe(start, start.parent / "other"), glue)
    np.testing.assert_allclose(
        found, due, rtol=1e-6
    )  # the head's product may round by the place of a row


def test_several_teachers_say_the_mean(start: Path, teacher: MakeTeacher, glue: Path) -> None:
    folders = [teacher(f"teacher{n}", seed=n) for n in range(3)]
    alone = [logits_of(recipe(start, folder), glue) for folder in folders]
    before = files(start.parent / "cache")
    found = logits_of(recipe(start, *folders), glue)
    np.testing.assert_allclose(found, np.mean(alone, 0), rtol=1e-5, atol=1e-6)
    assert files(start.parent / "cache") == before


def test_what_is_kept_is_not_computed_again(
    start: Path, teacher: MakeTeacher, glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for a copy elsewhere; but for another length, precision, text or teacher it is."""
    folder = teacher("teacher")
    due = logits_of(recipe(start, folder), glue)
    shutil.copytree(folder, start.parent / "copy")
    with monkeypatch.context() as patched:
        patched.setattr(finetuned, "predict", lambda *_: pytest.fail("computed again"))
        assert np.array_equal(logits_of(recipe(start, start.parent / "copy", seed=5), glue), due)
    (folder / "recipe.yaml").write_text(dump_recipe(FinetuneRecipe(task="mrpc", max_length=9)))
    logits_of(recipe(start, folder), glue)
    change(folder, lambda _, tensor: tensor * 1.01)
    logits_of(recipe(start, folder), glue)
    path = glue / "MRPC" / "train.tsv"
    path.write_text(path.read_text().replace("light w", "letter w"))
    logits_of(recipe(start, folder), glue)
    assert len(list((start.parent / "cache").iterdir())) == 4


def test_the_teacher_is_gone_before_training(
    start: Path, teacher: MakeTeacher, glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Any]] = []
    whole = finetuned.open_finetuned

    def watched(*arguments: Any) -> finetuned.Finetuned:
        finetuned = whole(*arguments)
        opened.append(weakref.ref(finetuned.model))
        return finetuned

    monkeypatch.setattr(distillation, "open_finetuned", watched)
    run = prepared(recipe(start, teacher("one"), teacher("two", seed=1)), glue)
    gc.collect()
    assert run.teacher_logits is not None and [reference() for reference in opened] == [None, None]


# What the student learns


@pytest.mark.parametrize("name", ["mrpc", "stsb"])
def test_without_a_share_it_is_plain_finetuning_bit_for_bit(
    start: Path, teacher: MakeTeacher, glue: Path, name: str
) -> None:
    folder = teacher("teacher", labels=task(name).labels or ("score",))
    plain = finetune(recipe(start, output="plain", name=name), glue)
    taught = recipe(start, folder, output="taught", name=name, alpha=0.0, temperature=1.0)
    weights = [
        load_file(run / "final" / "model.safetensors") for run in (plain, finetune(taught, glue))
    ]
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())
    assert lines(plain) == lines(Path(str(taught.output)))
    finetune(
        taught.model_copy(
            update={"output": str(start.parent / "half"), "distillation": half(taught)}
        ),
        glue,
    )
    other = load_file(start.parent / "half" / "final" / "model.safetensors")
    assert not all(torch.equal(tensor, other[key]) for key, tensor in weights[0].items())


def half(taught: FinetuneRecipe) -> Any:
    return taught.distillation.model_copy(update={"alpha": 0.5})


def test_a_student_that_is_as_good_gets_no_gradient(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    """Through the whole model, from a batch with padding."""
    run = prepared(recipe(start, teacher("teacher"), alpha=1.0, temperature=3.0), glue)
    run.model.eval()
    (batch,) = run.micro_batches(0)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    taught = DistillationModel(run.model, run.recipe.distillation)

    def gradient(logits: torch.Tensor) -> float:
        run.model.zero_grad()
        taught(**inputs, labels=batch["labels"], teacher_logits=logits).loss_sums[
            "task"
        ].loss.backward()
        return max(
            float(parameter.grad.abs().max())
            for parameter in run.model.parameters()
            if parameter.grad is not None
        )

    own = run.model(**inputs).logits.detach()
    assert gradient(own) < 1e-5 < 1e-2 < gradient(batch["teacher_logits"])


def test_each_example_has_its_own_row(start: Path, teacher: MakeTeacher, glue: Path) -> None:
    run = prepared(recipe(start, teacher("teacher")), glue)
    assert run.teacher_logits is not None
    for step in range(run.steps):
        (batch,) = run.micro_batches(step)
        assert np.array_equal(
            batch["teacher_logits"].numpy(), run.teacher_logits[run.example_ids(step)]
        )


@pytest.mark.parametrize("name", ["mrpc", "stsb"])
def test_the_student_comes_to_say_what_the_teacher_says(
    start: Path, teacher: MakeTeacher, glue: Path, name: str
) -> None:
    """And not the labels, which the teacher, of random weights, does not know."""
    folder = teacher("teacher", labels=task(name).labels or ("score",))
    changes: dict[str, Any] = {
        "epochs": 40,
        "batch": 8,
        "dropout": 0.0,
        "checkpoint_every": 200,
        "evaluate_every": 200,
    }
    wanted = recipe(start, folder, name=name, alpha=1.0, **changes)
    said = logits_of(wanted, glue)
    run = finetune(wanted, glue)
    student = finetuned.open_finetuned(str(run), open_task(name, glue))
    learnt = student.logits(student.encode(student.data.read("train").examples))
    if name == "mrpc":
        said, learnt = said - said.mean(1, keepdims=True), learnt - learnt.mean(1, keepdims=True)
    assert np.corrcoef(said[:, 0], learnt[:, 0])[0, 1] > 0.85
    labels = np.arange(N) % 2 * (1 if name == "mrpc" else 5)
    assert abs(np.corrcoef(said[:, 0], labels)[0, 1]) < 0.5


def test_the_command_line_takes_several_and_the_plan_says_so(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    one, two = teacher("one"), teacher("two", seed=1)
    arguments = [
        "--task",
        "mrpc",
        "--teacher",
        str(one),
        "--teacher",
        str(two),
        "--model",
        str(start),
    ]
    keys = [
        "epochs=1",
        "max_length=16",
        "distillation.alpha=0.25",
        f"distillation.cache={start.parent / 'cache'}",
    ]
    run = start.parent / "run"
    ended = CliRunner().invoke(
        app,
        ["finetune", *arguments, "--glue-dir", str(glue), "--output", str(run), *keys],
        catch_exceptions=False,
    )
    assert ended.exit_code == 0
    kept = load_recipe(FinetuneRecipe, run / "recipe.yaml").distillation
    assert (kept.teacher, kept.alpha) == ((str(one), str(two)), 0.25)
    assert f"taught by the mean logits of {one} and {two} (accuracy" in ended.output
    assert "alpha 0.25, temperature 2" in ended.output


# Refusals


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()


def of_three_labels(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}})
    )


def of_qqp(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(dump_recipe(FinetuneRecipe(task="qqp")))


def fill(value: float) -> Callable[[Path], None]:
    return lambda folder: change(
        folder,
        lambda name, tensor: (
            torch.full_like(tensor, value) if name == "classifier.weight" else tensor
        ),
    )


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another task's labels": (
        lambda folder: relabel(folder, TASKS["rte"].labels, [0, 1]),
        "labels entailment, not_entailment, and mrpc has not_equivalent, equivalent",
    ),
    "another task by its recipe": (
        of_qqp,
        "The teacher was finetuned on qqp, but this run is for mrpc",
    ),
    "a head of another size": (
        of_three_labels,
        r"classifier.weight has shape \(2, 32\) instead of \(3, 32\)",
    ),
    "no tokenizer": (without_tokenizer, "has no tokenizer"),
    "weights that are no numbers": (
        fill(float("nan")),
        r"non-finite values in classifier.weight",
    ),
    "logits that are no numbers": (
        fill(3e38),
        r"The teacher's logits are not finite \(16 of 16 examples, first of row 0\)",
    ),
    "no folder": (shutil.rmtree, "There is no folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_teacher_that_cannot_teach_is_refused(
    start: Path, teacher: MakeTeacher, glue: Path, what: str
) -> None:
    spoil, said = REFUSED[what]
    folder = teacher("teacher")
    spoil(folder)
    with pytest.raises(UserError, match=f"distillation.teacher={folder}: .*{said}"):
        finetune(recipe(start, folder), glue)
    assert not (start.parent / "run").exists()


def test_a_teacher_of_classes_is_refused_for_a_regression(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    with pytest.raises(
        UserError, match="labels not_equivalent, equivalent, and stsb has a number in their place"
    ):
        finetune(recipe(start, teacher("teacher"), name="stsb"), glue)


def test_a_teacher_that_is_the_student_is_refused(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    first = finetune(recipe(start, output="first", epochs=1), glue)
    shutil.copytree(first / "final", start.parent / "copy")
    for path in (first, start.parent / "copy"):
        with pytest.raises(UserError, match="the same weights that this run starts from"):
            finetune(recipe(first, path), glue)
    with pytest.raises(UserError, match=r"belongs to the run .*first itself"):
        finetune(recipe(start, first, output="first", epochs=1), glue, resume="auto")
    # Its sizes alone, or another run from it, are no student.
    finetune(recipe(first, first, output="scratch", from_scratch=True, epochs=1), glue)
    finetune(
        recipe(
            first,
            finetune(recipe(first, output="second", epochs=1), glue),
            output="third",
            epochs=1,
        ),
        glue,
    )


def test_another_recipe_is_refused_before_the_teachers_are_asked(
    start: Path, teacher: MakeTeacher, glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = teacher("teacher")
    finetune(recipe(start, folder, epochs=1), glue)
    monkeypatch.setattr(lessons, "ask_teachers", lambda *_: pytest.fail("they were asked"))
    with pytest.raises(UserError, match="not be the same run: seed was 0, is 1"):
        finetune(recipe(start, folder, epochs=1, seed=1), glue, resume="auto")


def test_another_teacher_is_refused_when_a_run_goes_on(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    folder = teacher("teacher")
    run = finetune(recipe(start, folder, epochs=1), glue)
    before = lines(run)
    change(folder, lambda _, tensor: tensor * 1.01)
    with pytest.raises(UserError, match="not be the same run: what the teacher says has changed"):
        finetune(recipe(start, folder, epochs=1), glue, "auto")
    with pytest.raises(UserError, match=r"distillation.alpha was 0.9, is 0.5"):
        finetune(recipe(start, teacher("teacher"), epochs=1, alpha=0.5), glue, "auto")
    finetune(recipe(start, folder, epochs=1, cache=str(start.parent / "elsewhere")), glue, "auto")
    assert lines(run) == before


@pytest.mark.parametrize(
    ("weight", "said"), [(0.0, None), (0.5, "distillation.hidden was 0.5, is no longer supported")]
)
def test_a_run_with_removed_keys_goes_on_where_they_were_off(
    start: Path, teacher: MakeTeacher, glue: Path, weight: float, said: str | None
) -> None:
    """With the keys of recipe.yaml and trainer.json as versions wrote them that could learn a
    teacher's states.
    """
    wanted = recipe(start, teacher("teacher"), epochs=1).model_copy(update={"glue_dir": str(glue)})
    run = finetune(wanted, glue)
    before = lines(run)
    removed = {"hidden": weight, "attention": 0.0}
    for path in (run / "checkpoints").iterdir():
        state = json.loads((path / "trainer.json").read_text())
        state["recipe"]["distillation"] |= removed
        (path / "trainer.json").write_text(json.dumps(state))
        manifest = json.loads((path / "manifest.json").read_text())
        content = (path / "trainer.json").read_bytes()
        manifest["trainer.json"] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
    saved = yaml.safe_load((run / "recipe.yaml").read_text())
    saved["distillation"] |= removed
    (run / "recipe.yaml").write_text(yaml.safe_dump(saved))
    if said is not None:
        with pytest.raises(UserError, match=said):
            finetune(wanted, glue, "auto")
        with pytest.raises(UserError, match=r"distillation\.hidden: no longer supported"):
            load_recipe(FinetuneRecipe, run / "recipe.yaml")
        return
    shutil.rmtree(run / "final")
    assert (
        load_recipe(FinetuneRecipe, run / "recipe.yaml")
        == wanted.model_copy(update={"precision": "fp32"})  # what auto is on a CPU
        == recipe_of(str(run), FinetuneRecipe)
    )
    assert lines(finetune(load_recipe(FinetuneRecipe, run / "recipe.yaml"), glue, "auto")) == before


# The cache


def about_of_other_data(folder: Path) -> None:
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps(about | {"examples": 7}))


def chunk(**tensors: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file(tensors, folder / "00001.safetensors")


def written(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "about.json").write_text(text)

    return write


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "other data": (about_of_other_data, r"about.json describes other data \(examples\)"),
    "no JSON": (written("{"), "about.json cannot be read"),
    "no object": (written("[]"), "about.json cannot be read"),
    "no about.json": (lambda folder: (folder / "about.json").unlink(), "it has no about.json"),
    "torn": (
        lambda folder: os.truncate(folder / "00001.safetensors", 100),
        "00001.safetensors cannot be read",
    ),
    "empty": (
        lambda folder: os.truncate(folder / "00001.safetensors", 0),
        "00001.safetensors cannot be read",
    ),
    "another name": (chunk(other=torch.zeros(CHUNK, 2)), "00001.safetensors cannot be read"),
    "another shape": (
        chunk(logits=torch.zeros(CHUNK, 3)),
        r"00001.safetensors has \(16, 3\) of float32",
    ),
    "another type": (chunk(logits=torch.zeros(CHUNK, 2).double()), r"has \(16, 2\) of float64"),
    "not finite": (
        chunk(logits=torch.full((CHUNK, 2), float("inf"))),
        "has logits that are not finite",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_cache_that_does_not_fit_is_refused(
    start: Path, teacher: MakeTeacher, glue: Path, what: str
) -> None:
    spoil, said = DAMAGED[what]
    wanted = recipe(start, teacher("teacher"))
    logits_of(wanted, glue)
    folder = only_cache(start)
    spoil(folder)
    with pytest.raises(
        UserError, match=f"The folder {folder} holds damaged .*{said}.*Remove the folder"
    ):
        finetune(wanted, glue)


def test_a_bit_that_flipped_in_a_cache_is_found(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    wanted = recipe(start, teacher("teacher"))
    whole = logits_of(wanted, glue)
    path = only_cache(start) / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a number in the logits that stays finite
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged logits: 00001.safetensors has changed. Remove"):
        logits_of(wanted, glue)
    path.with_suffix(".sha256").unlink()  # as in a folder of an older version
    assert (logits_of(wanted, glue) != whole).sum() == 1


def test_a_cache_that_cannot_be_written_is_told(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    (start.parent / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written to .*another distillation.cache"):
        finetune(recipe(start, teacher("teacher")), glue)


SMALL_FILES = """
import os, time
os.fsync = lambda fd: time.sleep(0.01)  # files take so long that some are still to be made
from sqzb.finetuning.distillation import teachers as distillation
distillation.CHUNK = 4
from sqzb.cli import main
main()
"""


def test_killed_it_goes_on_and_two_processes_share_the_work(
    start: Path, teacher: MakeTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is that of an undisturbed run, byte for byte; and so is what two processes
    train from it.
    """
    glue = tmp_path / "larger"
    glue.mkdir()
    write_task(glue, 200)
    monkeypatch.setattr(distillation, "CHUNK", 4)
    folder = teacher("teacher")
    settings: dict[str, Any] = {"epochs": 1, "batch": 100, "dropout": 0.0, "lr": 1e-3}
    whole = finetune(
        recipe(start, folder, output="whole", cache=str(tmp_path / "undisturbed"), **settings), glue
    )
    (tmp_path / "wanted.yaml").write_text(
        dump_recipe(recipe(start, folder, output="killed", **settings))
    )

    def begin(rank: int = 0, port: int = 0) -> fork_server.Popen:
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        world |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return fork_server.Popen(
            [
                sys.executable,
                "-c",
                SMALL_FILES,
                "finetune",
                "--recipe",
                "wanted.yaml",
                "--glue-dir",
                str(glue),
            ],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (world if port else {}),
            stdout=subprocess.DEVNULL,
        )

    def computed() -> int:
        return len(list(tmp_path.glob("cache/*/*.safetensors")))

    process = begin()
    while computed() < 5 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL and 5 <= computed() < 50
    next(tmp_path.glob("cache/*")).joinpath("00048.safetensors.partial").write_bytes(b"torn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [begin(rank, port) for rank in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert files(tmp_path / "cache") == files(tmp_path / "undisturbed")
    weights = load_file(tmp_path / "killed" / "final" / "model.safetensors")
    for name, tensor in load_file(whole / "final" / "model.safetensors").items():
        assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"unlabelled": 1, "augmented": 0}, "and 1 unlabelled example with"),
        ({"unlabelled": 1, "augmented": 2}, "and 1 unlabelled and 2 augmented examples with"),
        ({"unlabelled": 1_200, "augmented": 0}, "and 1,200 unlabelled examples with"),
    ],
)
def test_the_plan_counts_further_examples(extra: dict[str, int], words: str) -> None:
    settings = FinetuneRecipe().distillation
    assert words in distillation._plan_text(settings, MRPC.kind, {}, extra)
