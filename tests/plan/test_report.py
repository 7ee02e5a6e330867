"""`sqzb plan` on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sqzb.cli import app
from sqzb.corpus.store import TRAIN, Corpus
from sqzb.errors import UserError
from sqzb.plan.report import time_text


def plan(*arguments: str, code: int = 0) -> str:
    ended = CliRunner().invoke(app, ["plan", *arguments])
    assert ended.exit_code == code, ended.output
    text = str(ended.exception) if isinstance(ended.exception, UserError) else ended.output
    return " ".join(text.split())


def test_the_published_recipe_without_a_corpus(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    text = plan("phase1_128", "--hardware", "8x H200", "--price", "4", "--json", str(output))
    assert "458,752,000 sequences, 58,720,256,000 positions" in text
    assert "data/corpus is not there" in text and "measured on 2026-11-27" in text
    figures = json.loads(output.read_text())
    hours = 58_720_256_000 / 1_364_000 / 8 / 3600
    on = figures["hardware"]["8x H200"]
    assert on["measured"] and on["seconds"] == round(3600 * hours)
    assert on["dollars"] == [round(8 * hours * 4, 2)]


def test_epochs_are_counted_over_the_corpus(corpus: Corpus) -> None:
    small = ["sequence_length=16", "max_predictions=3", "global_batch=32", "micro_batch=32"]
    text = plan("phase1_128", f"corpus={corpus.folder}", "steps=100000", *small)
    chunks = corpus.manifest["lengths"]["16"]["chunks"][TRAIN]
    assert f"epochs of {chunks:,} chunks" in text
    assert f"sees each chunk {3_200_000 / chunks:,.0f} times" in text

    refused = plan("phase1_128", f"corpus={corpus.folder}", *small[1:], code=1)
    assert "has no chunks of length 128, only of 16, 32" in refused


def test_a_finetuning_needs_its_number_of_examples() -> None:
    text = plan("own_data", "--examples", "3668", "--hardware", "l4")
    assert "2,300 of 16 sequences" in text and "10 epochs" in text
    assert "--examples N" in plan("own_data", code=2)


def test_the_times_of_a_finetuning_are_called_rough(tmp_path: Path) -> None:
    """The speed of pretraining was measured with 8,192 sequences, and this has 16."""
    output = tmp_path / "plan.json"
    glue = ["glue", "--examples", "3668", "--hardware", "H200", "precision=bf16"]
    text = plan(*glue, "--json", str(output))
    assert "in a step of 2,048 positions" in text and "measured on 2026" not in text
    on = json.loads(output.read_text())["hardware"]["1x H200"]
    assert not on["measured"] and on["seconds"] == round(2_300 * 0.0045)
    assert "Rough" not in plan("phase1_128", "--hardware", "8x H200")


def test_the_precision_of_a_finetuning_is_that_of_the_hardware(tmp_path: Path) -> None:
    """auto is bf16 where a device has it; the figures are those of the precision by name."""
    output = tmp_path / "plan.json"

    def figures(*overrides: str) -> dict[str, dict[str, float]]:
        machines = ["--hardware", "H100", "--hardware", "T4"]
        rest = ["--json", str(output), "--overwrite", *overrides]
        text = plan("own_data", "--examples", "3668", *machines, *rest)
        assert ("FLOP in bf16 on a GPU that has it, else in fp32" in text) == (not overrides)
        of_each: dict[str, dict[str, float]] = json.loads(output.read_text())["hardware"]
        return of_each

    auto = figures()
    assert auto["1x H100"] == figures("precision=bf16")["1x H100"]
    assert auto["1x T4"] == figures("precision=fp32")["1x T4"]


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (["--hardware", "T4"], "no bf16 units"),
        (["--hardware", "T4", "micro_batch=8192"], "do not fit into 16 GB"),
        (["--hardware", "3x H100"], "3 devices do not divide"),
        (["--hardware", "T4", "steps=56000000"], "takes years"),
        (["--hardware", "T4", "model.hidden_size=96"], "measured with 12 layers x 768"),
    ],
)
def test_a_plan_that_makes_no_sense_is_warned_of(arguments: list[str], warning: str) -> None:
    assert warning in plan("phase1_128", *arguments)


def test_times() -> None:
    assert time_text(50) == "50 s" and time_text(5 * 86400) == "5.0 days"
    assert time_text(2 * 365 * 86400) == "2.0 years"
