"""eval: a finetuned model on its task, or a pretrained one on the held-out part of a corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb import console
from sqzb.corpus.store import Corpus
from sqzb.data.dataset import Classes, DataSet, Example, Kind
from sqzb.errors import UserError
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import decide, losses, measure, together
from sqzb.finetuning.finetuned import by_index, open_finetuned
from sqzb.finetuning.labels import confusion, under_chance
from sqzb.finetuning.report import print_validation_report
from sqzb.model.open import open_for_pretraining
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout
from sqzb.pretraining.report import print_heldout_report
from sqzb.pretraining.start import check_fit, check_vocabulary
from sqzb.recipe import PretrainRecipe
from sqzb.training.engine import Evaluator, start_accelerator
from sqzb.training.run_folder import recipe_of

WORST = 10  # mistakes to show
SHOWN = 60  # characters of a text on the terminal


def evaluate_task(path: str, data: DataSet, split: str) -> dict[str, Any]:
    """Print and return how well a finetuned model predicts a data set.

    split: "validation" for figures, confusion matrices and the worst mistakes; "test", whose labels
    GLUE keeps back, for predictions. MNLI has two of each.
    """
    finetuned = open_finetuned(path, data)
    kind = data.kind
    names = data.test_splits if split == "test" else data.validation_splits
    if not names:
        raise UserError(f"{data.name} has no {split} split. Give --split test.")
    found: dict[str, Any] = {
        "path": path,
        "task": data.name,
        "split": split,
        "labels": list(kind.names),
    }
    examples = {name: _load(data, name) for name in names}
    if split == "test":
        by_split = {name: by_index(finetuned, examples[name]) for name in names}
        for name, predictions in by_split.items():
            console.out.print(
                f"{path} on {data.name}, {name} split: "
                f"{console.counted(len(predictions), 'prediction')}."
            )
        return found | {
            "splits": {name: _named(kind, predictions) for name, predictions in by_split.items()}
        }
    encoded = {name: finetuned.encode(examples[name]) for name in names}
    logits = {name: finetuned.logits(encoded[name]) for name in names}
    figures = together(
        {name: measure(data, decide(kind, logits[name]), encoded[name]) for name in names}
    )
    print_validation_report(f"{path} on {data.name}", data, figures, encoded)
    details = {
        name: _details(kind, name, examples[name], encoded[name], logits[name]) for name in names
    }
    return found | figures | {"splits": details}


def _load(data: DataSet, split: str) -> list[Example]:
    examples, warnings = data.read(split)
    for warning in warnings:
        console.warn(warning)
    return examples


def _named(kind: Kind, predictions: Mapping[int, float]) -> dict[str, Any]:
    named = {str(index): _said(kind, value) for index, value in predictions.items()}
    return {"examples": len(named), "predictions": named}


def _said(kind: Kind, value: float) -> str | float:
    return kind.names[int(value)] if isinstance(kind, Classes) else value


def _details(
    kind: Kind,
    split: str,
    examples: Sequence[Example],
    encoded: Encoded,
    logits: NDArray[np.float32],
) -> dict[str, Any]:
    """Print and return where the model is wrong: by label, and its worst mistakes."""
    predictions, loss = decide(kind, logits), losses(kind, logits, encoded)
    found: dict[str, Any] = {"examples": len(examples)}
    if isinstance(kind, Classes):
        counts = confusion(kind, predictions, encoded)
        found["confusion"] = counts.tolist()
        rows = [
            (label, *(f"{count:,}" for count in row))
            for label, row in zip(kind.names, counts.tolist(), strict=True)
        ]
        console.table(
            f"{split}: true labels (rows) and predicted labels (columns)",
            ("label", *kind.names),
            rows,
        )
        warning = under_chance(counts)
        if warning is not None:
            console.warn(warning)
    worst = [
        row for row in np.argsort(-loss, kind="stable") if predictions[row] != encoded.labels[row]
    ][:WORST]
    found["mistakes"] = [
        {
            **examples[row]._asdict(),
            "label": _said(kind, encoded.labels[row].item()),
            "prediction": _said(kind, predictions[row].item()),
            "loss": loss[row],
        }
        for row in worst
    ]
    if worst:
        console.table(
            f"{split}: the worst mistakes",
            ("text", "label", "taken for", "loss"),
            [*map(_row, found["mistakes"])],
        )
    return found


def _row(mistake: Mapping[str, Any]) -> tuple[str, str, str, str]:
    texts = [mistake["text_a"], *([] if mistake["text_b"] is None else [mistake["text_b"]])]
    label, prediction = (
        value if isinstance(value, str) else f"{value:.2f}"
        for value in (mistake["label"], mistake["prediction"])
    )
    return (
        "\n".join(text if len(text) <= SHOWN else f"{text[:SHOWN]}..." for text in texts),
        label,
        prediction,
        f"{mistake['loss']:.2f}",
    )


def evaluate_corpus(path: str, corpus_folder: Path) -> dict[str, Any]:
    """Print and return the held-out losses and accuracies of a pretrained model.

    A run is evaluated as it was trained; any other model at every length of the corpus that it can
    take.
    """
    corpus = Corpus(corpus_folder)
    opened = open_for_pretraining(path)
    model = opened.model
    has_sop = opened.folder.has_sop_head  # else the model has a new one, which knows nothing
    accelerator = start_accelerator()
    found: dict[str, Any] = {"path": path, "corpus": str(corpus_folder)}
    for recipe in _pretrain_recipes(path, corpus, model.config.max_position_embeddings):
        check_fit(model.config, recipe, corpus, path)
        check_vocabulary(opened.tokenizer, corpus, path)
        assert isinstance(recipe.micro_batch, int)  # a run's recipe holds the one that was found
        layout = BatchLayout(
            recipe.micro_batch,
            recipe.micro_batch,
            accelerator.num_processes,
            accelerator.process_index,
        )
        examples = Examples(recipe, corpus, layout)
        figures = evaluate_heldout(Evaluator(accelerator, model, LABELS), examples, None)
        if not has_sop:
            figures = {
                name: value for name, value in figures.items() if not name.startswith("heldout_sop")
            }
        print_heldout_report(f"{path} at length {recipe.sequence_length}", figures, corpus)
        found[f"length_{recipe.sequence_length}"] = figures | {"sequences": len(examples.heldout)}
    return found | {"heldout_unigram_nats": corpus.manifest["heldout_unigram_nats"]}


def _pretrain_recipes(path: str, corpus: Corpus, positions: int) -> list[PretrainRecipe]:
    recipe = recipe_of(path, PretrainRecipe)
    if recipe is not None:
        return [recipe]
    lengths = [length for length in corpus.manifest["sequence_lengths"] if length <= positions]
    return [PretrainRecipe(sequence_length=n, max_predictions=round(0.15 * n) + 1) for n in lengths]
