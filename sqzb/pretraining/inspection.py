"""inspect-corpus: training examples as a person reads them."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from sqzb import console
from sqzb.corpus.store import Corpus
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import Examples, Share
from sqzb.pretraining.examples import Batch
from sqzb.recipe import PretrainRecipe
from sqzb.tokenizer import CLS, CONTINUATION, MASK, PAD

ORDERS = {0: "in order", 1: "swapped", IGNORED: "one sentence alone, with no order to ask for"}


def inspect(folder: Path, n: int, length: int | None, seed: int) -> None:
    """Print the first `n` examples that a run with `seed` would train on at a sequence length."""
    corpus = Corpus(folder)
    length = length or corpus.manifest["sequence_lengths"][0]
    predictions = max(1, min(round(0.15 * length), length - 3))
    recipe = PretrainRecipe(sequence_length=length, max_predictions=predictions, seed=seed)
    examples = Examples(recipe, corpus, Share(n, n, 1, 0))
    epochs, chunks = examples.chunks_of_step(0)
    batch = examples.batch(epochs, chunks)
    vocabulary = corpus.tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    for row, chunk in enumerate(chunks):
        _show(f"Chunk {chunk:,} of {len(examples.train):,}", batch, row, names)


def _show(title: str, batch: Batch, row: int, names: Sequence[str]) -> None:
    """One example: its segments as the model sees them, and what it is asked."""
    seen = [names[token] for token in batch.input_ids[row]]
    asked = {
        int(place): names[label]
        for place, label in zip(batch.mlm_positions[row], batch.mlm_labels[row], strict=True)
        if label != IGNORED
    }
    types = batch.token_type_ids[row].tolist()
    places = [place for place, token in enumerate(seen) if token != PAD]
    console.out.print(
        f"\n[bold]{title}[/]: {ORDERS[int(batch.sop_labels[row])]}, {len(places)} of {len(seen)} "
        "places"
    )
    for segment, name in enumerate("AB"):
        of_segment = [place for place in places if types[place] == segment]
        if of_segment:
            console.out.print(Text(f"  {name}  ").append_text(_text(seen, asked, of_segment)))
    said = ", ".join(
        _question(place, seen[place], answer) for place, answer in sorted(asked.items())
    )
    console.out.print(Text(f"  asked for {len(asked)}: {said}"))


def _text(seen: Sequence[str], asked: dict[int, str], places: Sequence[int]) -> Text:
    """The tokens put together to words; those that are asked for without being masked stand in braces."""
    text = Text()
    for place in places:
        token = seen[place]
        joined = token.startswith(CONTINUATION) and len(text) and seen[place - 1] != CLS
        shown = token.removeprefix(CONTINUATION) if joined else token
        text.append("" if joined or not len(text) else " ")
        marked = place in asked and token != MASK
        text.append(f"{{{shown}}}" if marked else shown, "bold magenta" if place in asked else "")
    return text


def _question(place: int, seen: str, answer: str) -> str:
    if seen == MASK:
        return f"{place} {answer}"
    return f"{place} {answer} ({'left as it is' if seen == answer else f'shown as {seen}'})"
