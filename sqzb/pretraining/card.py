"""The model card of a pretrained model: what its corpus and its recipe tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.corpus.manifest import RECIPE
from sqzb.corpus.store import HELDOUT, TRAIN, Corpus
from sqzb.corpus.text import KEPT
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, PretrainRecipe, load_recipe
from sqzb.training.card import MODEL_ID, Facts, Figure, Measured, Table

USAGE = f"""```python
from transformers import pipeline
fill = pipeline("fill-mask", "{MODEL_ID}")
fill(f"A text with a {{fill.tokenizer.mask_token}} in it.")
```

With sqzb, fill masks or finetune the model on labelled texts:

```sh
sqzb fill-mask {MODEL_ID} "A text with a [MASK] in it."
sqzb finetune --model {MODEL_ID} --train reviews.csv
```"""
PREDICTED = {"mlm": "masked tokens", "sop": "pairs of segments"}


def card_facts(
    recipe: PretrainRecipe,
    corpus: Corpus,
    hashes: Mapping[str, str],
    figures: Mapping[str, float],
) -> Facts:
    """Return the content of the model card.

    hashes: SHA-256 of each input of the run.
    figures: on all held-out sequences, by the name of the log.
    """
    sources: dict[str, dict[str, Any]] = corpus.manifest["sources"]
    on_hub = {name: about for name, about in sources.items() if "revision" in about}
    names = {name: about["path"].partition("@")[0] for name, about in on_hub.items()}
    return Facts(
        title=f"pretrained on {', '.join(sources)}",
        pipeline="fill-mask",
        start=recipe.start_from,
        datasets=sorted(names.values()),
        licences={name: about.get("licence") for name, about in sources.items()},
        language=_language(corpus.folder),
        usage=USAGE,
        labels=(),
        data=(_sources(sources, names), _sizes(corpus, recipe.sequence_length)),
        hashes=hashes,
        measured=Measured("held-out documents of the corpus", ", ".join(sources)),
        figures=[_figure(name, value) for name, value in figures.items()],
        length=recipe.sequence_length,
        limits=[
            "The model predicts masked tokens and gives vectors of texts. For labels, finetune it.",
            "It is an encoder and does not write text.",
        ],
    )


def _language(folder: Path) -> str | None:
    """Return the language of a corpus; None if its recipe is gone, which ends no finished run."""
    try:
        recipe = load_recipe(CorpusRecipe, folder / RECIPE, stored=True)
    except UserError:
        return None
    return "en" if recipe.language == "simple" else recipe.language.partition("-")[0]


def _sources(sources: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """Return a row for each source.

    names: Hub id of each source that is on the Hub.
    """
    rows = []
    for name, about in sources.items():
        origin = "local files"
        if name in names:
            config = f", {about['config']}" if "config" in about else ""
            origin = f"{names[name]}{config}, commit {about['revision']}"
        kept = about["counts"][KEPT]
        size = console.size(kept["bytes"])
        rows.append((name, origin, f"{kept['documents']:,}", size, about.get("licence", "")))
    return Table(("source", "origin", "documents", "text", "licence"), rows)


def _sizes(corpus: Corpus, length: int) -> Table:
    """Return documents, tokens and chunks of each split."""
    manifest = corpus.manifest
    rows = []
    for split in (TRAIN, HELDOUT):
        counts = (
            manifest["documents"][split],
            manifest["tokens"][split],
            manifest["lengths"][str(length)]["chunks"][split],
        )
        rows.append((split, *(f"{count:,}" for count in counts)))
    return Table(("split", "documents", "tokens", f"chunks of {length} tokens"), rows)


def _figure(name: str, value: float) -> Figure:
    """Return a figure of the log, such as heldout_mlm_loss, with its unit."""
    plain = name.removeprefix(f"{HELDOUT}_")
    loss, metric, *masks = plain.split("_")
    predicted = PREDICTED.get(loss, loss)
    if masks:
        predicted += f", {masks[0]} % of the tokens masked"
    if "averaged" in masks:
        predicted += ", averaged weights"
    unit = f"nats, mean of {predicted}" if metric == "loss" else f"share of {predicted}, 0 to 1"
    return Figure(plain, value, unit, metric, HELDOUT)
