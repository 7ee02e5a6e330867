"""finetune: a pretrained model and a GLUE task to a run folder with a classifier."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.optim import AdamW

from sqzb import console
from sqzb.draws import Permutation
from sqzb.errors import UserError
from sqzb.files import whole_folder
from sqzb.finetuning.data import Example, load_split
from sqzb.finetuning.evaluation import Encoded, encode, evaluate, majority
from sqzb.finetuning.tasks import Task, task
from sqzb.hub import local_folder
from sqzb.model import SqueezeBertForSequenceClassification
from sqzb.model.checkpoint import read_config
from sqzb.recipe import FinetuneRecipe
from sqzb.tokenizer import load_tokenizer
from sqzb.training.engine import Engine, dropout_key, start_accelerator
from sqzb.training.optimization import parameter_groups, rate
from sqzb.training.runlog import Pace, RunLog, refuse_used, write_card

LABELS = {"task": "labels"}


def finetune(recipe: FinetuneRecipe, glue_dir: Path | None) -> Path:
    """Run the recipe on GLUE's own files under `glue_dir`, or on the Hub's; the run's folder."""
    if recipe.task is None:
        raise UserError("There is no task: give --task, such as --task mrpc.")
    chosen = task(recipe.task)
    folder = Path(recipe.output or f"runs/{chosen.name}")
    refuse_used(folder)
    accelerator = start_accelerator(recipe.precision)
    source = local_folder(recipe.model)
    tokenizer = load_tokenizer(source)
    model = build_model(recipe, chosen, source, tokenizer)
    train = _read(chosen, "train", glue_dir, tokenizer, recipe.max_length)
    validation = _read(chosen, "validation", glue_dir, tokenizer, recipe.max_length)

    steps_per_epoch = math.ceil(len(train.ids) / recipe.batch)
    steps = recipe.epochs * steps_per_epoch
    optimizer = AdamW(parameter_groups(model, recipe.weight_decay), lr=recipe.lr)
    engine = Engine(accelerator, model, optimizer, LABELS, recipe.clip_norm, recipe.compile)
    log = RunLog(folder, accelerator.is_main_process)
    accelerator.wait_for_everyone()  # no process may find the folder used by another
    log.start(recipe, recipe.seed, str(accelerator.device), accelerator.num_processes)
    if accelerator.is_main_process:
        start = "sizes, random weights" if recipe.from_scratch else "weights"
        console.out.print(
            f"{chosen.name.upper()}: {len(train.ids):,} training and {len(validation.ids):,} validation examples, "
            f"{recipe.model} ({start})\n{steps:,} steps = {recipe.epochs} epochs x {steps_per_epoch} batches of "
            f"{recipe.batch}, rate {recipe.lr:g}, seed {recipe.seed}"
        )

    figures: dict[str, float] = {}
    tokens, pace = 0, Pace(0)
    with console.bar("Finetuning", steps, show=accelerator.is_main_process) as bar:
        for step in range(steps):
            epoch, within = divmod(step, steps_per_epoch)
            rows = rows_of_step(len(train.ids), recipe.batch, recipe.seed, epoch, within)
            batch = train.batch(_share(rows, accelerator))
            lr = rate(step, steps, recipe.lr, recipe.warmup, decay_power=1.0)
            key = dropout_key(recipe.seed, step, accelerator.process_index)
            result = engine.step([batch], lr, [key])
            tokens += int(engine.total(int(batch["attention_mask"].sum())))
            done = step + 1
            if not result.finite and accelerator.is_main_process:
                console.warn(f"step {done}: loss or gradient is not finite; the weights were left as they were.")
            if done % recipe.log_every == 0 or done == steps:
                speed = round(pace.tokens_per_second(tokens))
                log.log(done, tokens=tokens, loss=result.loss, **result, lr=lr, tokens_per_second=speed)
            bar.advance(text=f"loss {result.loss:.3f}  {_short(figures)}")
            if within + 1 == steps_per_epoch:
                if done == steps and accelerator.is_main_process:
                    _save(folder, recipe, model, tokenizer)
                with pace.paused():
                    figures = evaluate(model, validation, chosen, accelerator)
                log.log(done, epoch=epoch + 1, **{f"validation_{name}": value for name, value in figures.items()})
    if accelerator.is_main_process:
        write_card(folder / "final", folder.name, recipe, figures)
        report(f"Finetuned {folder}", chosen, figures, validation)
    return folder


def build_model(
    recipe: FinetuneRecipe, chosen: Task, source: Path, tokenizer: Tokenizer
) -> SqueezeBertForSequenceClassification:
    """The model to start from, under a new head with the task's labels."""
    torch.manual_seed(recipe.seed)
    id2label = dict(enumerate(chosen.labels)) or {0: "score"}
    changes: dict[str, Any] = {"id2label": id2label, "problem_type": None}
    if recipe.dropout is not None:
        changes |= {"hidden_dropout_prob": recipe.dropout, "attention_probs_dropout_prob": recipe.dropout}
    if recipe.from_scratch:
        model = SqueezeBertForSequenceClassification(read_config(source).model_copy(update=changes))
    else:
        model = SqueezeBertForSequenceClassification.from_pretrained(source, **changes)
    vocab_size, positions = model.config.vocab_size, model.config.max_position_embeddings
    if tokenizer.get_vocab_size() > vocab_size:
        raise UserError(
            f"The vocabulary in {source} ({tokenizer.get_vocab_size():,} tokens) does not fit its model "
            f"({vocab_size:,}). Give a folder whose tokenizer and weights belong together."
        )
    if recipe.max_length > positions:
        raise UserError(f"max_length {recipe.max_length} is over the model's {positions} positions. Lower it.")
    return model


def rows_of_step(n: int, batch: int, seed: int, epoch: int, within: int) -> NDArray[np.int64]:
    """The examples of batch `within` of an epoch: each once in an epoch, the last batch may be smaller."""
    return Permutation(n, seed, epoch)[np.arange(within * batch, min(n, (within + 1) * batch))]


def _share(rows: NDArray[np.int64], accelerator: Accelerator) -> NDArray[np.int64]:
    """This process's rows; all processes get as many, filled up with -1."""
    processes = accelerator.num_processes
    filled = np.concatenate([rows, np.full(-len(rows) % processes, -1)])
    mine: NDArray[np.int64] = filled[accelerator.process_index :: processes]
    return mine


def _read(chosen: Task, split: str, glue_dir: Path | None, tokenizer: Tokenizer, max_length: int) -> Encoded:
    examples: list[Example] = load_split(chosen, split, glue_dir)
    return encode(examples, tokenizer, max_length, chosen.regression)


def _save(
    folder: Path, recipe: FinetuneRecipe, model: SqueezeBertForSequenceClassification, tokenizer: Tokenizer
) -> None:
    with whole_folder(folder / "final") as aside:
        model.save_pretrained(aside, tokenizer)
        write_card(aside, folder.name, recipe, {})


def _short(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.1%}" for name, value in figures.items() if name != "score")


def report(title: str, chosen: Task, figures: dict[str, float], validation: Encoded) -> None:
    """The closing table, beside what the commonest label alone gives."""
    baseline = majority(chosen, validation)
    rows = [(name, f"{value:.1%}", f"{baseline[name]:.1%}") for name, value in figures.items()]
    console.table(title, (f"validation ({len(validation.ids):,})", "measured", "majority"), rows)
