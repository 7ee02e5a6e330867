"""The closing table of pretraining and of `sqzb eval --corpus`."""

import math
from pathlib import Path

from sqzb import console
from sqzb.corpus.store import Corpus
from sqzb.recipe import PretrainRecipe
from sqzb.recipe.shipped import with_values
from sqzb.training.ending import print_ending

SECOND_PHASE, SECOND_LENGTH = "phase2_512", 512  # the recipe for a run of shorter sequences


def print_heldout_report(title: str, figures: dict[str, float], corpus: Corpus) -> None:
    """Print the held-out figures beside those of a model that knows only token frequencies."""
    baseline = corpus.manifest["heldout_unigram_nats"]
    rows = []
    if "heldout_mlm_loss" in figures:
        loss = figures["heldout_mlm_loss"]
        rows.append(("MLM loss", f"{loss:.3f} nats", f"{baseline:.3f} (unigram)"))
        rows.append(("MLM perplexity", f"{_perplexity(loss):.1f}", f"{_perplexity(baseline):.1f}"))
        rows.append(("MLM accuracy", f"{figures['heldout_mlm_accuracy']:.1%}", ""))
    if "heldout_mlm_loss_15" in figures:
        loss = figures["heldout_mlm_loss_15"]
        rows.append(("MLM loss at 15 % masks", f"{loss:.3f} nats", f"{baseline:.3f} (unigram)"))
    if "heldout_mlm_loss_15_averaged" in figures:
        loss = figures["heldout_mlm_loss_15_averaged"]
        rows.append(("the same, averaged weights", f"{loss:.3f} nats", ""))
    if "heldout_sop_accuracy" in figures:
        rows.append(("SOP loss", f"{figures['heldout_sop_loss']:.3f} nats", f"{math.log(2):.3f}"))
        rows.append(("SOP accuracy", f"{figures['heldout_sop_accuracy']:.1%}", "50.0%"))
    console.table(title, ("held out", "measured", "baseline"), rows)


def print_next_commands(run: Path, recipe: PretrainRecipe, corpus: Corpus, positions: int) -> None:
    """Print where the model is, what it took, and the commands that use it.

    positions: tokens that the model reads.
    """
    commands: list[list[str | Path]] = [["sqzb", "fill-mask", run, "A text with one [MASK]."]]
    phases = with_values("pretrain", start_from=str(run))
    lengths = corpus.manifest["sequence_lengths"]
    if phases:
        commands.append(["sqzb", "pretrain", phases[0]])
    elif recipe.sequence_length < SECOND_LENGTH <= positions and SECOND_LENGTH in lengths:
        changes = [f"start_from={run}", f"corpus={recipe.corpus}"]
        output = run.with_name(f"{run.name}_{SECOND_LENGTH}")
        commands.append(["sqzb", "pretrain", SECOND_PHASE, *changes, "--output", output])
    commands.append(["sqzb", "finetune", "--model", run, "--train", "FILE", "--output", "DIR"])
    commands.append(["sqzb", "report", run])
    print_ending(run / "final", [run], *commands)


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
