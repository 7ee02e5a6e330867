"""The closing table of pretraining and of `sqzb eval --corpus`."""

import math

from sqzb import console
from sqzb.corpus.store import Corpus


def print_heldout_report(title: str, figures: dict[str, float], corpus: Corpus) -> None:
    """Print the held-out figures beside those of a model that knows only token frequencies."""
    baseline = corpus.manifest["heldout_unigram_nats"]
    rows = []
    if "heldout_mlm_loss" in figures:
        loss = figures["heldout_mlm_loss"]
        rows.append(("MLM loss", f"{loss:.3f} nats", f"{baseline:.3f} (unigram)"))
        rows.append(("MLM perplexity", f"{_perplexity(loss):.1f}", f"{_perplexity(baseline):.1f}"))
        rows.append(("MLM accuracy", f"{figures['heldout_mlm_accuracy']:.1%}", ""))
    if "heldout_sop_accuracy" in figures:
        rows.append(("SOP loss", f"{figures['heldout_sop_loss']:.3f} nats", f"{math.log(2):.3f}"))
        rows.append(("SOP accuracy", f"{figures['heldout_sop_accuracy']:.1%}", "50.0%"))
    console.table(title, ("held out", "measured", "baseline"), rows)


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
