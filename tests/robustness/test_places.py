"""Every command that writes, in places that cannot be written: one paragraph, before any work."""

import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from saved_runs import save_run
from sqzb.cli.commands import _exit_code
from sqzb.corpus.store import Corpus
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.recipe.strict_yaml import dump
from sqzb.tokenizer import load_tokenizer

# What each command writes: a folder, or a file with this ending.
FOLDER = ""
Place = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    corpus: Corpus,
    vocabulary: Path,
    source_folder: Path,
) -> dict[str, str]:
    """Small inputs of all commands, by name."""
    folder = tmp_path_factory.mktemp("inputs")
    run = save_run(folder / "run", vocabulary, task="cola", max_length=16)
    config = SqueezeBertConfig(
        vocab_size=corpus.manifest["vocab_size"],
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    SqueezeBertForPreTraining(config).save_pretrained(
        folder / "pretrained", load_tokenizer(corpus.folder)
    )
    rows = "".join(f"the letter {n},{n % 2}\n" for n in range(40))
    for name in ("rows.csv", "more.csv"):
        (folder / name).write_text(f"text,label\n{rows}")
    recipe = {
        "corpus": str(corpus.folder),
        "start_from": str(folder / "pretrained"),
        "sequence_length": 16,
        "max_predictions": 4,
        "steps": 2,
        "global_batch": 2,
        "micro_batch": 2,
        "checkpoint_every": 1,
    }
    (folder / "pretrain.yaml").write_text(dump(recipe))
    source = {"sources": {"a": {"path": str(source_folder)}}, "sequence_lengths": [16]}
    source["vocabulary"] = {"path": str(vocabulary)}
    (folder / "corpus.yaml").write_text(dump(source))
    return {
        "RUN": str(run),
        "PRETRAINED": str(folder / "pretrained"),
        "CORPUS": str(corpus.folder),
        "ROWS": str(folder / "rows.csv"),
        "MORE": str(folder / "more.csv"),
        "PRETRAIN": str(folder / "pretrain.yaml"),
        "SOURCES": str(folder / "corpus.yaml"),
    }


# Each command line with what its last argument is. A sweep writes before its runs start.
COMMANDS = [
    ("prepare-corpus SOURCES --workers 1 --output", FOLDER),
    ("pretrain PRETRAIN --output", FOLDER),
    ("finetune --train ROWS --model PRETRAINED max_length=16 epochs=1 --output", FOLDER),
    ("finetune --train ROWS --model PRETRAINED --seeds 1,2 --output", FOLDER),
    ("eval PRETRAINED --corpus CORPUS --json", ".json"),
    ("eval RUN --submission", ".zip"),
    ("predict RUN --file ROWS --text text --output", ".csv"),
    ("predict RUN --file ROWS --file MORE --text text --output", FOLDER),
    ("embed RUN --file ROWS --text text --output", ".npy"),
    ("recipes copy phase1_128", ".yaml"),
    ("plan phase1_128 --json", ".json"),
    ("report RUN --output", ".html"),
]


def _below_a_file(folder: Path, ending: str) -> Path:
    (folder / "file").write_text("content")
    return folder / "file" / f"out{ending}"


def _a_file_for_a_folder(folder: Path, ending: str) -> Path:
    """Or a folder for a file."""
    path = folder / f"out{ending}"
    if ending:
        path.mkdir()
        (path / "inside").write_text("content")
    else:
        path.write_text("content")
    return path


def _a_broken_link(folder: Path, ending: str) -> Path:
    path = folder / f"out{ending}"
    path.symlink_to(folder / "missing" / "target")
    return path


def _below_a_circle(folder: Path, ending: str) -> Path:
    (folder / "link").symlink_to(folder / "link")
    return folder / "link" / f"out{ending}"


def _where_no_file_can_be(folder: Path, ending: str) -> Path:
    return Path(f"/proc/self/out{ending}")


def _without_permission(folder: Path, ending: str) -> Path:
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("no permission stops root")
    return folder / "new" / f"out{ending}"


def _where_files_are_limited(folder: Path, ending: str) -> Path:
    return folder / f"out{ending}"


def _with_a_name_that_is_too_long(folder: Path, ending: str) -> Path:
    return folder / f"{'long' * 100}{ending}"


PLACES: list[Place] = [
    _below_a_file,
    _a_file_for_a_folder,
    _a_broken_link,
    _below_a_circle,
    _where_no_file_can_be,
    _without_permission,
    _where_files_are_limited,
    _with_a_name_that_is_too_long,
]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file be larger, as `ulimit -f` does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else os.readlink(path)
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__.strip("_"))
@pytest.mark.parametrize(("command", "ending"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_place_that_cannot_be_written_is_one_paragraph_before_any_work(
    command: str,
    ending: str,
    place: Place,
    inputs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(torch.nn.Module, "_call_impl", work)
    if command.startswith("recipes") and place is _a_file_for_a_folder:
        pytest.skip("a folder is where the copy goes")
    path = place(tmp_path, ending)
    before = content(tmp_path)
    arguments = [inputs.get(word, word) for word in command.split()]
    monkeypatch.setattr(sys, "argv", ["sqzb", *arguments, str(path)])
    with largest_file(0 if place is _where_files_are_limited else resource.RLIM_INFINITY):
        code = _exit_code(debug=False)
    message = capsys.readouterr().err
    assert code in (1, 2), message
    assert "Traceback" not in message and message.count("error: ") <= 1
    # The frame of a wrong option divides paths.
    named = [str(folder) for folder in (path, *path.parents[: len(path.parts) - 3])]
    assert any(name in re.sub(r"[\s│]", "", message) for name in named)
    assert content(tmp_path) == before
    tmp_path.chmod(0o700)


def test_a_run_whose_files_are_limited_names_its_last_checkpoint(
    inputs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "[red]run" / "[/x]\x1b[31m"  # neither markup nor commands
    command = ["sqzb", "pretrain", inputs["PRETRAIN"], "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    with largest_file(20_000):
        assert _exit_code(debug=False) == 1
    message = capsys.readouterr().err
    assert r"[red]run/[/x]\x1b[31m" in message
    assert "over the largest size" in message and "Last intact checkpoint: none" in message
    monkeypatch.setattr(sys, "argv", [*command, "--resume", "auto"])
    assert _exit_code(debug=False) == 0 and (output / "final").is_dir()
    printed = capsys.readouterr()
    assert r"[red]run/[/x]\x1b[31m" in printed.out and "\x1b" not in printed.out + printed.err
