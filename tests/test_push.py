"""sqzb push to a stub of the Hub: what goes, what is asked, what is refused, and no token."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from cards import FACTS
from hub_stub import HubStub, serve
from saved_runs import save_run
from sqzb.cli import app
from sqzb.errors import UserError, WrongArgument
from sqzb.files import locked
from sqzb.push import File, finished_model, model_files, push
from sqzb.recipe import FinetuneRecipe, PretrainRecipe, dump_recipe
from sqzb.training.card import write_card

TOKEN = "hf_" + "secretsecretsecretsecretsecret12"
NAME = "owner/reviews"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    with serve(TOKEN) as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stub has no Xet storage
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stub


@pytest.fixture
def run(tmp_path: Path, vocabulary: Path) -> Path:
    """A finished run of finetuning."""
    folder = save_run(tmp_path / "run", vocabulary, task="rte")
    (folder / "run.json").write_text(json.dumps({"hub": {}, "hardware": {}}))
    last = {"step": 5, "time": 2.0, "validation_accuracy": 0.5, "validation_score": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    usage = '```python\nload("OWNER/NAME")\n```'
    write_card(folder, FinetuneRecipe(task="rte"), FACTS._replace(usage=usage))
    return folder


def sqzb(*arguments: Any, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["push", *map(str, arguments)], input=answer)


def problem(result: Result) -> str:
    """Return the message of a command that ended with an error for the user."""
    assert isinstance(result.exception, UserError), result.exception
    return str(result.exception)


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("private", [True, False])
def test_the_model_is_uploaded_after_a_yes(hub: HubStub, run: Path, private: bool) -> None:
    options = ["--private"] if private else []
    result = sqzb(run, NAME, *options, answer="y\n")
    assert result.exit_code == 0, result.output
    local, there = content(run / "final"), hub.files[NAME]
    card = there.pop("README.md").decode()
    assert local.pop("README.md").decode() == card.replace(NAME, "OWNER/NAME")
    assert f'load("{NAME}")' in card
    assert there == local and hub.private == {NAME: private}
    asked = result.output.partition("Upload these")[0]
    assert all(name in asked for name in [*local, "README.md", "total"])
    assert ("private: only" in result.output) is private
    assert f"The model is at {hub.endpoint}/{NAME}" in result.output
    assert TOKEN not in result.output
    # The same once more goes into the same repository.
    assert sqzb(run / "final", NAME, *options, "--yes").exit_code == 0


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_the_hub_is_not_asked(hub: HubStub, run: Path, answer: str) -> None:
    assert "Nothing was uploaded" in problem(sqzb(run, NAME, answer=answer))
    assert not hub.asked


def test_a_public_repository_gets_no_private_model(hub: HubStub, run: Path) -> None:
    hub.private[NAME] = False
    assert "is public" in problem(sqzb(run, NAME, "--private", "--yes"))
    assert not hub.files and not hub.objects


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("repos/create", 403, "must not write to owner"),
        ("repos/create", 401, "does not accept the token"),
        ("repos/create", 500, "problem of its own (500)"),
        ("repos/create", 429, "too many requests"),
        ("validate-yaml", 400, "refuses"),
        ("preupload", 403, "must not write to owner"),
        ("preupload", 404, "not to be found"),
        ("objects/batch", 400, "refuses"),
        ("commit", 409, "Run the command again"),
        ("commit", 400, "refuses the upload"),
    ],
)
def test_a_hub_that_refuses(
    hub: HubStub, run: Path, path: str, status: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.fails[path] = status
    result = sqzb(run, NAME, "--yes")
    message = problem(result)
    assert words in message and "Nothing was published" in message
    assert not hub.files
    everything = message + result.output + "".join(capfd.readouterr()) + _chain(result.exception)
    assert TOKEN not in everything and "secret" not in everything


def _chain(error: BaseException | None) -> str:
    """Return all errors that --debug would show."""
    texts = []
    while error is not None:
        texts.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


def test_a_wrong_token(hub: HubStub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN + "x")
    message = problem(sqzb(run, NAME, "--yes"))
    assert "does not accept the token" in message and "secret" not in message


def test_no_token(hub: HubStub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in problem(sqzb(run, NAME, "--yes"))
    assert not hub.asked


def test_offline(hub: HubStub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE=1 is set" in problem(sqzb(run, NAME, "--yes"))
    assert not hub.asked


def test_no_server(hub: HubStub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in problem(sqzb(run, NAME, "--yes"))


@pytest.mark.parametrize("name", ["reviews", "a/b/c", "owner/", "/x", "owner/x@v1", "a b/c", ""])
def test_no_name_of_a_model(hub: HubStub, run: Path, name: str) -> None:
    with pytest.raises(WrongArgument, match="OWNER/NAME"):
        push(run, name, False, lambda question: True)


def test_an_unfinished_run_is_refused(run: Path) -> None:
    assert finished_model(run) == finished_model(run / "final") == run / "final"
    with locked(run), pytest.raises(UserError, match="at work"):
        finished_model(run)
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole + '{"step": 6, "loss": 1.0}\n')
    with pytest.raises(UserError, match="not finished"):
        finished_model(run)
    (run / "metrics.jsonl").write_text(whole)
    (run / "final" / "README.md").unlink()
    with pytest.raises(UserError, match="not finished"):
        finished_model(run / "final")


def test_a_pretraining_is_finished_at_its_last_step(tmp_path: Path, vocabulary: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary)
    (run / "final" / "README.md").touch()
    recipe = PretrainRecipe(steps=20, start_from="x")
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    (run / "metrics.jsonl").write_text('{"step": 10}\n')
    with pytest.raises(UserError, match="not finished"):
        finished_model(run)
    (run / "metrics.jsonl").write_text('{"step": 20}\n')
    assert finished_model(run) == run / "final"


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "gone", "no folder"), (tmp_path, "no saved model")):
        with pytest.raises(UserError, match=words):
            finished_model(path)
    with pytest.raises(UserError, match="no weights"):
        model_files(tmp_path)


def test_what_is_private_stays_here(run: Path, tmp_path: Path) -> None:
    final = run / "final"
    before = model_files(final)
    for name in (".env", ".cache/x", "config.json.partial"):
        (final / name).parent.mkdir(exist_ok=True)
        (final / name).write_text("secret")
    assert model_files(final) == before and all(isinstance(file, File) for file in before)
    (tmp_path / "outside").write_text("secret")
    (final / "notes.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link to a file outside"):
        model_files(final)
