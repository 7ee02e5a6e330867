"""The workload of a recipe, with as much of its data and models as there is."""

import json
from pathlib import Path
from typing import NamedTuple

from sqzb import console
from sqzb.corpus.store import TRAIN, read_manifest
from sqzb.errors import UserError
from sqzb.model.config import MODEL_TYPE, SqueezeBertConfig, model_type
from sqzb.plan.estimates import Sizes, Workload
from sqzb.recipe import FinetuneRecipe, PretrainRecipe, number
from sqzb.recipe.automatic import LONGEST, epochs_for, rate_for

CONFIG = "config.json"
OPTIMIZERS = {"lamb": "LAMB", "adamw": "AdamW", "muon": "Muon"}
MANY_EPOCHS = 200  # BERT saw its corpus 40 times, and small experiments are repeated more often
CLASSES = 3  # of a classifier whose labels are not known: their number hardly matters


class Planned(NamedTuple):
    """A workload, with sentences on its data and its optimizer, and on what was not there."""

    workload: Workload
    start: str
    data: str
    optimizer: str
    notes: list[str]
    warnings: list[str]


def of_pretraining(recipe: PretrainRecipe) -> Planned:
    """Return the workload of a pretraining recipe. Corpus and start model may be missing."""
    notes: list[str] = []
    warnings: list[str] = []
    config = _start_config(recipe.start_from, notes) if recipe.model is None else recipe.model
    data = f"{recipe.corpus} is not there, so its epochs are not known"
    sequences = recipe.steps * recipe.global_batch
    if Path(recipe.corpus).exists():
        manifest = read_manifest(Path(recipe.corpus))
        if recipe.model is None or "vocab_size" not in recipe.model.model_fields_set:
            config = config.model_copy(update={"vocab_size": manifest["vocab_size"]})
        lengths = manifest["lengths"]
        of_length = lengths.get(str(recipe.sequence_length))
        if of_length is None:
            raise UserError(
                f"The corpus {recipe.corpus} has no chunks of length {recipe.sequence_length}, "
                f"only of {', '.join(lengths)}. Set sequence_length, or prepare the corpus with "
                f"sequence_lengths=[{recipe.sequence_length}]."
            )
        chunks = of_length["chunks"][TRAIN]
        data = epochs_text(sequences, chunks)
        warnings += epochs_warnings(sequences, chunks)
    if recipe.distillation.teacher is not None:
        teacher = recipe.distillation.teacher
        notes.append(f"Without the operations and the memory of the teacher {teacher}.")
    workload = pretraining_workload(recipe, config)
    start = f"from {recipe.start_from}" if recipe.start_from else "from scratch"
    return Planned(workload, start, data, optimizer_text(recipe), notes, warnings)


def pretraining_workload(recipe: PretrainRecipe, config: SqueezeBertConfig) -> Workload:
    """Return the workload of a pretraining recipe with this model."""
    return Workload(
        config,
        recipe.steps,
        recipe.global_batch,
        recipe.sequence_length,
        recipe.max_predictions,
        2 if recipe.sop else 0,
        recipe.precision,
        recipe.micro_batch if isinstance(recipe.micro_batch, int) else None,
        recipe.keep_checkpoints + (recipe.steps // recipe.keep_every if recipe.keep_every else 0),
        is_muon=recipe.optimizer.name == "muon",
        is_averaged=recipe.averaging.share > 0,
    )


def of_finetuning(recipe: FinetuneRecipe, examples: int) -> Planned:
    """Return the workload of a finetuning recipe on this number of training examples.

    Positions are counted at the recipe's max_length, so that they are an upper bound.
    """
    notes: list[str] = []
    config = _start_config(recipe.model, notes)
    chosen = {
        "epochs": epochs_for(examples),
        "lr": rate_for(config.hidden_size),
        "max_length": LONGEST,
    }
    values = {key: value for key, value in chosen.items() if getattr(recipe, key) == "auto"}
    resolved = recipe.model_copy(update=values)
    length = min(int(number(resolved.max_length)), config.max_position_embeddings)
    resolved = resolved.model_copy(update={"max_length": length})
    notes.append(f"Every text is counted with max_length {length} tokens, so this is the most.")
    if recipe.distillation.teacher:
        notes.append("Without the operations and the memory of the teachers.")
    batches = -(-examples // recipe.batch)
    steps = int(number(resolved.epochs)) * batches
    workload = finetuning_workload(resolved, config, steps, CLASSES)
    data = console.counted(examples, "training example")
    return planned_finetuning(recipe, resolved, workload, data, notes)


def finetuning_workload(
    recipe: FinetuneRecipe,
    config: SqueezeBertConfig,
    steps: int,
    labels: int,
    sizes: Sizes | None = None,
) -> Workload:
    """Return the workload of a finetuning recipe, which has numbers in place of `auto`."""
    return Workload(
        config,
        steps,
        recipe.batch,
        int(number(recipe.max_length)),
        0,
        labels,
        recipe.precision,
        recipe.batch,
        recipe.keep_checkpoints * (2 if recipe.keep_best else 1),
        sizes,
    )


def planned_finetuning(
    given: FinetuneRecipe,
    resolved: FinetuneRecipe,
    workload: Workload,
    examples: str,
    notes: list[str],
) -> Planned:
    """Return a finetuning with its workload; values that stand for `auto` are marked as chosen.

    given: the recipe that may have `auto`; resolved: the same with numbers.
    examples: their numbers, as text.
    """
    marks = {
        key: " (chosen)" if getattr(given, key) == "auto" else ""
        for key in ("epochs", "lr", "max_length")
    }
    epochs = int(number(resolved.epochs))
    data = (
        f"{examples}, {console.counted(epochs, 'epoch')}{marks['epochs']} of "
        f"{console.counted(workload.steps // epochs, 'step')}, max_length "
        f"{workload.length}{marks['max_length']}"
    )
    start = "with random weights" if given.from_scratch else f"from {given.model}"
    optimizer = f"AdamW, rate {number(resolved.lr):g}{marks['lr']}, seed {given.seed}"
    return Planned(workload, start, data, optimizer, notes, [])


def optimizer_text(recipe: PretrainRecipe) -> str:
    """Return the optimizer with its rate, its warmup and the schedule behind that."""
    settings = recipe.optimizer
    warmup = console.counted(round(settings.warmup * recipe.steps), "warmup step")
    text = f"{OPTIMIZERS[settings.name]}, rate {settings.lr:g} after {warmup}"
    if settings.name == "muon":
        text += f", AdamW for the rest at {settings.rest_lr:g}"
    return text if settings.schedule == "polynomial" else f"{text}, {settings.schedule}"


def epochs_text(sequences: int, chunks: int) -> str:
    """Return the epochs in which `sequences` are drawn from `chunks`."""
    return f"{sequences / max(1, chunks):,.2f} epochs of {console.counted(chunks, 'chunk')}"


def epochs_warnings(sequences: int, chunks: int) -> list[str]:
    """Return a warning if the corpus is far too small for the run."""
    epochs = sequences / max(1, chunks)
    if epochs <= MANY_EPOCHS:
        return []
    return [
        f"The run sees each chunk {epochs:,.0f} times: the corpus is too small for so many steps. "
        "Prepare a larger one, or lower steps or global_batch."
    ]


def _start_config(start: str | None, notes: list[str]) -> SqueezeBertConfig:
    """Return the configuration of a model on this disk, or the published one with a note."""
    for folder in (Path(start or ""), Path(start or "") / "final"):
        path = folder / CONFIG
        if start is not None and path.is_file() and model_type(folder) == MODEL_TYPE:
            return SqueezeBertConfig.from_hf(json.loads(path.read_text(encoding="utf-8")))
    notes.append(f"{start} is not on this disk: the sizes are those of SqueezeBERT.")
    return SqueezeBertConfig()
