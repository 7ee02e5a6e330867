"""Training examples in readable form, for `sqzb inspect-corpus`."""

from collections.abc import Sequence
from pathlib import Path

from sqzb import console
from sqzb.corpus.store import Corpus
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.examples import Batch
from sqzb.recipe import PretrainRecipe
from sqzb.tokenizer import CLS, CONTINUATION, MASK, PAD

ORDERS = {0: "in order", 1: "swapped", IGNORED: "a single sentence without an order"}


def inspect(folder: Path, n: int, length: int | None, seed: int) -> None:
    """Print the first `n` examples that a run with `seed` would train on.

    length: sequence length; by default the corpus's first.
    """
    corpus = Corpus(folder)
    length = length or corpus.manifest["sequence_lengths"][0]
    predictions = max(1, min(round(0.15 * length), length - 3))
    recipe = PretrainRecipe(sequence_length=length, max_predictions=predictions, seed=seed)
    examples = Examples(recipe, corpus, BatchLayout(n, n, 1, 0))
    epochs, chunks = examples.chunks_of_step(0)
    with corpus.hash_check.explaining():
        batch = examples.batch(epochs, chunks)
    examples.check_corpus()
    vocabulary = corpus.tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    for row, chunk in enumerate(chunks):
        _show(f"Chunk {chunk:,} of {len(examples.train):,}", batch, row, names)


def _show(title: str, batch: Batch, row: int, names: Sequence[str]) -> None:
    """Print one example: its segments as the model sees them, and the tokens to predict."""
    seen = [names[token] for token in batch.input_ids[row]]
    labels = {
        int(position): names[label]
        for position, label in zip(batch.mlm_positions[row], batch.mlm_labels[row], strict=True)
        if label != IGNORED
    }
    types = batch.token_type_ids[row].tolist()
    positions = [position for position, token in enumerate(seen) if token != PAD]
    order = ORDERS[int(batch.sop_labels[row])]
    figures = f": {order}, {len(positions)} of {len(seen)} positions"
    console.out.print(console.styled("\n", (title, "bold"), figures))
    for segment, name in enumerate("AB"):
        of_segment = [position for position in positions if types[position] == segment]
        if of_segment:
            console.out.print(console.styled(f"  {name}  ", *_tokens(seen, labels, of_segment)))
    answers = ", ".join(
        _answer(position, seen[position], label) for position, label in sorted(labels.items())
    )
    console.out.print(f"  to predict, {len(labels)}: {answers}")


def _tokens(
    seen: Sequence[str], labels: dict[int, str], positions: Sequence[int]
) -> list[tuple[str, str]]:
    """Return (text, style) of the tokens, joined to words.

    Tokens to predict that are not masked are in braces.
    """
    parts: list[tuple[str, str]] = []
    for position in positions:
        token = seen[position]
        joined = bool(parts) and token.startswith(CONTINUATION) and seen[position - 1] != CLS
        shown = token.removeprefix(CONTINUATION) if joined else token
        if parts and not joined:
            parts.append((" ", ""))
        predicted = position in labels
        in_braces = predicted and token != MASK
        style = "bold magenta" if predicted else ""
        parts.append((f"{{{shown}}}" if in_braces else shown, style))
    return parts


def _answer(position: int, seen: str, label: str) -> str:
    if seen == MASK:
        return f"{position} {label}"
    return f"{position} {label} ({'left as it is' if seen == label else f'shown as {seen}'})"
