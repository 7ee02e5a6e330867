"""The command line before anything heavy is loaded: help, versions, wrong arguments, wrong
recipes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import fork_server
from sqzb import __version__
from sqzb.cli import app, main
from sqzb.cli.commands import SPINS, _exit_code
from sqzb.cli.options import PATHS
from sqzb.errors import UserError

HEAVY = (
    *("torch", "numpy", "accelerate", "datasets", "tokenizers", "pyarrow", "transformers"),
    *("safetensors", "huggingface_hub", "matplotlib", "ray", "sentencex", "torch_optimizer"),
)
SLOW = {
    *("rich.markdown", "rich.traceback", "rich.syntax", "importlib.metadata", "pydantic", "yaml"),
    *("rich.live", "rich.panel", "rich.table", "rich._emoji_codes", "asyncio", "logging"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-m", "sqzb", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=60,
    )


# A Python that has loaded nothing but the command line becomes each command once, as a copy that
# says at its end whether the command came to its arguments, and what is loaded. Behind the first,
# the Python has loaded what is light and all others need.
LOADED = """
import json, os, sys
from sqzb.cli import main
for arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.argv = ["sqzb", *arguments]
        try:
            main()
        except SystemExit:
            print(*sys.modules, file=sys.stderr, flush=True)
        os._exit(0)
    os.wait()
    import sqzb.recipe.shipped
"""
LIGHT = [
    ["--help"],
    ["pretrain", "--help"],
    ["pretrain", "no-such.yaml"],
    ["prepare-corpus", "no-such.yaml"],
    ["prepare-corpus"],
    ["prepare-corpus", "a.yaml", "--verify", "b"],
    ["inspect-corpus", "--help"],
    ["recipes"],
    ["recipes", "keys", "finetune"],
    ["pretrain", "phase1_128", "--steps", "10"],
    ["finetune"],
    ["finetune", "--task", "mrcp"],
]


def test_nothing_heavy_is_loaded_before_the_arguments_are_good() -> None:
    command = [sys.executable, "-c", LOADED, json.dumps(LIGHT)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    loaded = [set(line.split()) for line in told.splitlines() if "sqzb.cli" in line.split()]
    assert len(loaded) == len(LIGHT)
    assert [names & set(HEAVY) for names in loaded] == [set()] * len(LIGHT)
    assert not loaded[LIGHT.index(["--help"])] & SLOW  # it appears at once


def test_help_names_every_command_and_debug() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for name in (
        "prepare-corpus",
        "inspect-corpus",
        "pretrain",
        "finetune",
        "eval",
        "predict",
        "fill-mask",
        "recipes",
        "--debug",
    ):
        assert name in ended.stdout


def commands(path: str = "", command: Any = None) -> Iterator[str]:
    """Yield the words of each command behind sqzb."""
    yield path
    for name, inner in getattr(command or typer.main.get_command(app), "commands", {}).items():
        yield from commands(f"{path} {name}".strip(), inner)


@pytest.mark.parametrize("width", [1, 30, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_help_is_as_wide_as_the_terminal(
    width: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = CliRunner(charset=encoding).invoke(app, ["--help"]).stdout
    framed = [line for line in shown.splitlines() if line[:1] in set("╭│╰+|")]
    assert len(framed) > 20 and shown.isascii() == (encoding == "ascii")
    widths = {len(line) for line in framed}
    assert widths == {width} if width >= 80 else max(widths) < 50
    for word in ("pretrain", "Train", "model", "on", "prepared", "corpus."):
        assert word in shown


@pytest.mark.parametrize("command", commands())
def test_help_fits_a_terminal_or_has_panels(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout.strip()
    panels = [line for line in shown.splitlines() if line.startswith("╭")]
    assert len(shown.splitlines()) <= 24 or len(panels) >= 3
    longest_panel = max(part.count("\n") for part in shown.split("╭"))
    assert longest_panel <= 16


def test_version() -> None:
    assert run("--version").stdout.strip() == f"sqzb {__version__}"


def test_a_wrong_recipe_lists_everything_and_ends_with_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "corpus: nowhere\nseqence_length: 128\nglobal_batch: 30\nmicro_batch: 7\nsteps: many\n"
        "model: {hidden_size: 130, max_position_embeddings: 64}\n"
    )
    ended = run("pretrain", str(recipe), "optimizer.warmup=2")
    assert ended.returncode == 2
    for problem in (
        "seqence_length: unknown key; did you mean sequence_length?",
        "steps: should be a valid integer, not 'many'",
        "optimizer.warmup: should be less than 1, not 2",
        "micro_batch: 7 does not divide global_batch = 30",
        "model.q_groups: 4 does not divide hidden_size = 130",
    ):
        assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(place: str) -> None:
    command = ["pretrain", "no-such.yaml"]
    ended = run(*(["--debug", *command] if place == "before" else [*command, "--debug"]))
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "no-such.yaml" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain"],
        ["nonsense"],
        ["eval"],
        ["eval", "x", "--nonsense"],
        ["finetune"],
        ["finetune", "--task", "mrcp"],
        ["finetune", "--task", "mrpc,rte", "--task", "mrpc,mrcp"],
        ["finetune", "--task", "mrpc", "--seeds", "1,x"],
        ["finetune", "--task", "mrpc", "--jobs", "2"],
        ["finetune", "--task", "mrpc", "--seeds", "1,2", "--extend"],
        ["predict", "x"],
        ["predict", "x", "a", "--file", "b"],
        ["predict", "x", "a", "b", "c"],
        ["predict", "x", "a", "--output", "out.csv"],
        ["predict", "x", "a", "--text", "review"],
        ["predict", "x", "--file", "b", "--output", "out.csv", "--json"],
        ["predict", "x", "--file", "b", "--file", "c"],
        ["predict", "x", "--file", "b", "--executor", "ray"],
        ["fill-mask", "x"],
        ["eval", "x", "y"],
        ["eval", "x", "--split", "train"],
        ["eval", "x", "--split", "test"],
        ["eval", "x", "--json", "."],
        ["eval", "x", "--submission", "glue.zip", "--task", "rte"],
        ["prepare-corpus"],
        ["prepare-corpus", "a.yaml", "--verify", "b"],
        ["prepare-corpus", "a.yaml", "--executor", "nobody"],
        ["inspect-corpus"],
        ["inspect-corpus", "x", "--length", "7"],
        ["inspect-corpus", "x", "--n", "0"],
        ["recipes", "keys"],
        ["recipes", "show", "nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["pretrain", "phase1_128", "--steps", "10"],
            "no such option: --steps. Recipe keys have no dashes: steps=10",
        ),
        (
            ["pretrain", "phase1_128", "--steps=10"],
            "no such option: --steps. Recipe keys have no dashes: steps=10",
        ),
        (["pretrain", "--lr", "1e-3", "phase1_128"], "no dashes: optimizer.lr=1e-3"),
        (["finetune", "--batch-size", "3", "--task", "mrpc"], "no dashes: batch=VALUE"),
        (["prepare-corpus", "corpus", "--heldout"], "no dashes: heldout=VALUE"),
        (["finetune", "--task", "mrpc", "--seeds", "1 2"], "such as 1,2,3; not '1 2'"),
        (["finetune", "--task", "mrpc", "--resume"], "give --resume auto"),
        (["predict", "model", "--file", "."], "several files need --output FOLDER"),
        (["eval", "run", "--split", "test"], "that have labels, give --data FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_is_answered_with_the_way_to_write_it(
    arguments: list[str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2 and answer in ended.output


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[1] / "recipes"
    ended = CliRunner().invoke(app, ["recipes"])
    assert ended.exit_code == 0 and ended.stdout.count("\n") == len(list(recipes.iterdir()))
    assert CliRunner().invoke(app, ["recipes", "list"]).stdout == ended.stdout
    shown = CliRunner().invoke(app, ["recipes", "show", "corpus"]).stdout
    assert shown == (recipes / "corpus.yaml").read_text()
    target = tmp_path / "mine.yaml"
    assert CliRunner().invoke(app, ["recipes", "copy", "corpus", str(target)]).exit_code == 0
    assert target.read_text() == shown
    refused = CliRunner().invoke(app, ["recipes", "copy", "corpus", str(target)])
    assert isinstance(refused.exception, UserError) and "exists" in str(refused.exception)
    keys = CliRunner().invoke(app, ["recipes", "keys", "pretrain"]).stdout
    assert "optimizer.lr=0.0025  (number, over 0)" in keys


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "x", "--json", "figures.json/"],
        ["eval", "x", "--submission=glue.zip/"],
        ["predict", "x", "--file", "a.csv", "--output", "out.csv/"],
        ["embed", "x", "--file", "a.csv", "--output", "out.npy/"],
        ["recipes", "copy", "phase1_128", "mine.yaml/"],
    ],
    ids=" ".join,
)
def test_a_file_is_not_given_as_a_folder(arguments: list[str], tmp_path: Path) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2 and "for a file, leave out the /" in " ".join(
        ended.stderr.replace("│", "").split()
    )


def test_a_tilde_is_the_home_folder_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell leaves it in --output=~/x."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (
        ["eval", "~/model"],
        ["eval", "x", "--corpus=~/corpus"],
        ["predict", "~/model", "a text"],
        ["embed", "~/model", "--file", "a.csv", "--output", "a.npy"],
        ["fill-mask", "~/model", "a [MASK]"],
        ["inspect-corpus", "~/corpus"],
        ["prepare-corpus", "--verify=~/corpus"],
        ["pretrain", "~/recipe"],
        ["finetune", "--train=~/data.csv"],
        ["recipes", "copy", "phase1_128", "~/file/x.yaml"],
    ):
        (tmp_path / "file").touch()
        monkeypatch.setattr(sys, "argv", ["sqzb", *arguments])
        assert _exit_code(debug=False) in (1, 2)
        message = capsys.readouterr().err
        assert str(tmp_path) in message and "~" not in message


def test_every_path_of_a_command_is_expanded() -> None:
    """A value is a path by its name in --help."""
    named = {
        parameter.metavar
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        if parameter.metavar is not None
    }
    no_paths = {
        *("COLUMN", "COMMAND", "KEY=VALUE", "KIND", "N", "N,N", "NAME", "SPLIT", "TEXT"),
        *("A,B", "AMOUNT", "MACHINE", "OWNER/NAME"),
    }
    assert named - no_paths - {"SENTENCE [SECOND]"} <= PATHS


def test_an_argument_that_is_not_text_is_one_paragraph() -> None:
    command = [sys.executable, "-m", "sqzb", "predict", "x", os.fsdecode(b"caf\xe9")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("error: Argument 3, caf\\udce9, is not UTF-8. ")
    assert len(ended.stderr.splitlines()) == 1


def test_an_unusable_option_obeys_no_control_characters() -> None:
    for arguments in (["eval", "--\x1b[2Jx"], ["pretrain", "a", "--\x1b[2Jx"], ["eval", "\x1b[2J"]):
        ended = run(*arguments)
        assert ended.returncode in (1, 2)
        assert "\x1b" not in ended.stderr and r"\x1b[2J" in ended.stderr


ODD_PLACES = """
import os, sys
from sqzb.cli import main
if "gone" in sys.argv:
    sys.argv.remove("gone")
    os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
main()
"""


def test_odd_environments_are_no_tracebacks(tmp_path: Path) -> None:
    odd = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "1", "TMPDIR": "/no"}
    bare = {key: value for key, value in os.environ.items() if key != "HOME"} | odd
    for arguments, code in (
        (["recipes"], 0),
        (["recipes", "keys", "pretrain"], 0),
        (["recipes", "copy", "phase1_128", "mine.yaml"], 0),
        (["pretrain", "~/é"], 2),
        (["gone", "eval", "x"], 1),
        (["gone", "recipes", "copy", "phase1_128"], 1),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", ODD_PLACES, *arguments],
            cwd=tmp_path,
            env=bare,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr


@pytest.mark.parametrize("given", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_idle_threads_spin_shortly_unless_the_environment_has_a_setting(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP reads the variable when torch is imported, so it is set before."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that the value of before comes back
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv(given, "of mine")
    monkeypatch.setattr(sys, "argv", ["sqzb", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == (
        {None: SPINS, "GOMP_SPINCOUNT": "of mine"}.get(given)
    )
