"""pretrain: a corpus and a recipe to a run folder with a pretrained model."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb import console
from sqzb.corpus.store import HELDOUT, TRAIN, Chunks, Corpus
from sqzb.draws import Permutation
from sqzb.errors import RecipeError, UserError
from sqzb.files import whole_folder
from sqzb.hub import local_folder
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.pretraining.objectives import Objectives
from sqzb.pretraining.optimizer import Lamb
from sqzb.pretraining.order import samples_of_step
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.tokenizer import SpecialIds, load_tokenizer
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, MicroBatch, dropout_key
from sqzb.training.optimization import parameter_groups, rate
from sqzb.training.runlog import RECIPE, RunLog, refuse_used, write_card

LABELS = {"mlm": "mlm_labels", "sop": "sop_labels"}
FIGURES = [f"{name}_{kind}" for name in LABELS for kind in ("loss", "accuracy")]
# Held-out examples are the same for every run on a corpus, so that runs can be compared.
EVALUATION_SEED = 0
# What decides of which chunks a step is made, besides the corpus.
SAME_TO_RESUME = ("seed", "global_batch", "sequence_length")


class Share(NamedTuple):
    """The part of a step that one process computes."""

    global_batch: int
    micro_batch: int
    processes: int
    rank: int

    @property
    def micro_batches(self) -> int:
        """In one process and step: the steps of gradient accumulation."""
        return self.global_batch // (self.micro_batch * self.processes)

    def of(self, array: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of an array over the global batch, as (micro_batches, micro_batch)."""
        mine: NDArray[np.int64] = array.reshape(self.processes, self.micro_batches, self.micro_batch)[self.rank]
        return mine


class Examples:
    """The micro-batches of any step, and of the held-out part."""

    def __init__(self, recipe: PretrainRecipe, corpus: Corpus, share: Share) -> None:
        self._recipe, self._share = recipe, share
        self._special = SpecialIds(**corpus.manifest["special_ids"])
        self._vocab_size = corpus.manifest["vocab_size"]
        self.train = _chunks(corpus, TRAIN, recipe.sequence_length)
        self.heldout = corpus.split(HELDOUT, recipe.sequence_length)
        self._objectives = self._objectives_with(recipe.seed)

    def of_step(self, step: int) -> list[MicroBatch]:
        epochs, numbers = samples_of_step(step, self._share.global_batch, len(self.train), self._recipe.seed)
        rows = zip(self._share.of(epochs), self._share.of(numbers), strict=True)
        return [_tensors(self._objectives, self.train, *row) for row in rows]

    def of_heldout(self, at_most: int | None) -> Iterator[MicroBatch]:
        """This process's part of the held-out examples."""
        n = min(len(self.heldout), at_most or len(self.heldout))
        numbers = Permutation(len(self.heldout), EVALUATION_SEED)[np.arange(n)]
        mine = numbers[self._share.rank :: self._share.processes]
        objectives = self._objectives_with(EVALUATION_SEED)
        for start in range(0, len(mine), self._share.micro_batch):
            rows = mine[start : start + self._share.micro_batch]
            yield _tensors(objectives, self.heldout, np.zeros_like(rows), rows)

    def _objectives_with(self, seed: int) -> Objectives:
        recipe = self._recipe
        return Objectives(
            self._special,
            self._vocab_size,
            recipe.sequence_length,
            recipe.max_predictions,
            recipe.masking_rate,
            recipe.sop,
            seed,
        )


def _tensors(
    objectives: Objectives, chunks: Chunks, epochs: NDArray[np.int64], numbers: NDArray[np.int64]
) -> MicroBatch:
    batch = objectives.batch(chunks, epochs, numbers)
    return {name: torch.from_numpy(array) for name, array in batch._asdict().items()}


def _chunks(corpus: Corpus, split: str, length: int) -> Chunks:
    chunks = corpus.split(split, length)
    if not len(chunks):
        raise UserError(
            f"The corpus {corpus.folder} has no {split} chunks of length {length}. Prepare it from more text."
        )
    return chunks


def build_model(recipe: PretrainRecipe, corpus: Corpus) -> SqueezeBertForPreTraining:
    """A new model with the corpus's vocabulary, or the one to start from if its vocabulary and positions fit."""
    vocab_size, pad = corpus.manifest["vocab_size"], corpus.manifest["special_ids"]["pad"]
    if recipe.start_from is not None:
        model = SqueezeBertForPreTraining.from_pretrained(recipe.start_from)
        check_fit(model.config, recipe, corpus, recipe.start_from)
        _check_vocabulary(recipe.start_from, corpus)
        return model
    assert recipe.model is not None  # the recipe's own check
    config = recipe.model
    if "vocab_size" not in config.model_fields_set:
        config = config.model_copy(update={"vocab_size": vocab_size})
    config = config.model_copy(update={"pad_token_id": pad})
    check_fit(config, recipe, corpus, "the recipe")
    torch.manual_seed(recipe.seed)
    return SqueezeBertForPreTraining(config)


def check_fit(config: SqueezeBertConfig, recipe: PretrainRecipe, corpus: Corpus, origin: str) -> None:
    vocab_size = corpus.manifest["vocab_size"]
    if config.vocab_size != vocab_size:
        raise UserError(
            f"The vocabulary of the corpus {corpus.folder} ({vocab_size:,} tokens) does not fit the model of {origin} "
            f"({config.vocab_size:,}). Use a corpus that was prepared with the model's vocabulary."
        )
    if recipe.sequence_length > config.max_position_embeddings:
        raise UserError(
            f"sequence_length {recipe.sequence_length} is over the {config.max_position_embeddings} positions of the "
            f"model of {origin}. Lower it, or start from a model with more positions."
        )


def _check_vocabulary(start_from: str, corpus: Corpus) -> None:
    """UserError when the model to start from lies beside another vocabulary, if only of the same size."""
    folder = local_folder(start_from)
    has_one = any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt"))
    if has_one and load_tokenizer(folder).get_vocab() != corpus.tokenizer.get_vocab():
        raise UserError(
            f"The vocabulary of the corpus {corpus.folder} has other tokens than that of {start_from}. Use a corpus "
            "that was prepared with the model's vocabulary (vocabulary.path in the corpus's recipe)."
        )


def _check_same_data(folder: Path, recipe: PretrainRecipe) -> None:
    """UserError when a run in `folder` cannot go on with `recipe`: its steps would be made of other chunks."""
    try:
        begun = load_recipe(PretrainRecipe, folder / RECIPE)
    except RecipeError:  # written by another version
        return
    changed = {key for key in SAME_TO_RESUME if getattr(begun, key) != getattr(recipe, key)}
    if changed:
        was = ", ".join(f"{key}={getattr(begun, key)}" for key in SAME_TO_RESUME if key in changed)
        raise UserError(
            f"The run {folder} was begun with {was}; with another value it would train on other examples than those "
            "that are left. Resume with that value, or give another --output."
        )


def pretrain(recipe: PretrainRecipe, resume: bool = False, dry_run: bool = False) -> Path:
    """Run the recipe; the run's folder. Saves come before evaluations, so that neither costs the other."""
    if recipe.output is None:
        raise UserError("The run has no folder: give --output DIR, or the recipe the key output.")
    accelerator = Accelerator(mixed_precision="bf16" if recipe.precision == "bf16" else "no")
    share = _share(recipe, accelerator)
    folder = Path(recipe.output)
    checkpoint = checkpoints.newest(folder) if resume else None
    if not resume and not dry_run:
        refuse_used(folder, ", --resume to go on with it")
    if checkpoint is not None:
        _check_same_data(folder, recipe)
    corpus = Corpus(recipe.corpus)
    examples = Examples(recipe, corpus, share)
    model = build_model(recipe, corpus)
    if recipe.model is not None:
        recipe = recipe.model_copy(update={"model": model.config})  # as it is resolved: with the corpus's vocabulary
    if not recipe.sop:
        # Without a gradient LAMB's trust ratio would turn the weight decay into a decay by the whole rate: to nothing.
        for unused in (model.sop, model.transformer.pooler):
            unused.requires_grad_(False)
    if accelerator.is_main_process:
        _banner(recipe, share, examples, model, accelerator)
    if dry_run:
        return folder

    settings = recipe.optimizer
    optimizer = Lamb(parameter_groups(model, settings.weight_decay), settings.lr, settings.betas, settings.eps)
    engine = Engine(accelerator, model, optimizer, LABELS, settings.clip_norm, recipe.compile)
    state = checkpoints.load(checkpoint, model, optimizer) if checkpoint is not None else {"step": 0, "tokens": 0}
    log = RunLog(folder, accelerator.is_main_process)
    accelerator.wait_for_everyone()  # no process may find the folder used by another
    log.start(recipe, recipe.seed, str(accelerator.device), share.processes)
    log.forget_after(state["step"])
    tokens, first = state["tokens"], state["step"]

    def save(step: int) -> None:
        if accelerator.is_main_process:
            checkpoints.save(
                folder, step, model, optimizer, corpus.tokenizer, {"tokens": tokens}, recipe.keep_checkpoints
            )

    def evaluate(step: int, at_most: int | None) -> dict[str, float]:
        figures = engine.evaluate(examples.of_heldout(at_most)) if len(examples.heldout) else {}
        figures = {f"heldout_{name}": value for name, value in figures.items()}
        log.log(step, **figures)
        return figures

    with (
        ThreadPoolExecutor(1) as ahead,
        console.bar("Pretraining", recipe.steps, first, accelerator.is_main_process) as bar,
    ):
        upcoming = ahead.submit(examples.of_step, first)
        seen, since = tokens, time.perf_counter()
        for step in range(first, recipe.steps):
            batches = upcoming.result()
            if step + 1 < recipe.steps:
                upcoming = ahead.submit(examples.of_step, step + 1)
            lr = rate(step, recipe.steps, settings.lr, settings.warmup, settings.decay_power)
            numbers = range(share.rank * share.micro_batches, (share.rank + 1) * share.micro_batches)
            result = engine.step(batches, lr, [dropout_key(recipe.seed, step, number) for number in numbers])
            tokens += int(engine.total(sum(int(batch["attention_mask"].sum()) for batch in batches)))
            done = step + 1
            if not result.finite and accelerator.is_main_process:
                console.warn(f"step {done}: loss or gradient is not finite; the weights were left as they were.")
            if done % recipe.log_every == 0 or done == recipe.steps or not result.finite:
                speed = (tokens - seen) / (time.perf_counter() - since)
                # A figure that the step had no label for is null.
                figures = dict.fromkeys(FIGURES) | result
                log.log(done, tokens=tokens, loss=result.loss, **figures, lr=lr, tokens_per_second=round(speed))
                seen, since = tokens, time.perf_counter()
            bar.advance(text=f"loss {result.loss:.3f}  mlm {result.get('mlm_accuracy', 0):.1%}")
            if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                save(done)
            if done % recipe.evaluate_every == 0 and done < recipe.steps:
                paused = time.perf_counter()
                evaluate(done, recipe.evaluate_sequences)
                since += time.perf_counter() - paused

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with whole_folder(folder / "final") as aside:
            model.save_pretrained(aside, corpus.tokenizer)
            write_card(aside, folder.name, recipe, {})
    heldout = evaluate(recipe.steps, None)
    if accelerator.is_main_process:
        write_card(folder / "final", folder.name, recipe, heldout)
        report(f"Pretrained {folder}", heldout, corpus)
    return folder


def _share(recipe: PretrainRecipe, accelerator: Accelerator) -> Share:
    share = Share(recipe.global_batch, recipe.micro_batch, accelerator.num_processes, accelerator.process_index)
    if recipe.global_batch % (share.micro_batch * share.processes):
        raise UserError(
            f"global_batch {share.global_batch} is not divided by micro_batch {share.micro_batch} times "
            f"{share.processes} processes. Change micro_batch, or the number of processes."
        )
    return share


def _banner(
    recipe: PretrainRecipe, share: Share, examples: Examples, model: SqueezeBertForPreTraining, accelerator: Accelerator
) -> None:
    config, n_train = model.config, len(examples.train)
    parameters = sum(p.numel() for p in model.parameters())
    places = recipe.steps * share.global_batch * recipe.sequence_length
    epochs = recipe.steps * share.global_batch / n_train
    start = f"from {recipe.start_from}" if recipe.start_from else "from scratch"
    console.out.print(
        f"SqueezeBERT {config.num_hidden_layers} x {config.hidden_size}, {parameters:,} parameters, {start}, "
        f"on {accelerator.device} in {recipe.precision}\n"
        f"global batch {share.global_batch:,} = {share.micro_batch} x {share.micro_batches} accumulation x "
        f"{share.processes} process{'es' if share.processes > 1 else ''}\n"
        f"{recipe.steps:,} steps of {share.global_batch * recipe.sequence_length:,} token places: {places:,} in all, "
        f"{epochs:,.2f} epochs of {n_train:,} chunks; {len(examples.heldout):,} held out\n"
        f"LAMB, rate {recipe.optimizer.lr:g} after {round(recipe.optimizer.warmup * recipe.steps):,} steps of warmup"
    )


def report(title: str, figures: dict[str, float], corpus: Corpus) -> None:
    """The closing table of what was learnt, beside what knows nothing but frequencies."""
    baseline = corpus.manifest["heldout_unigram_nats"]
    rows = []
    if "heldout_mlm_loss" in figures:
        rows.append(("MLM loss", f"{figures['heldout_mlm_loss']:.3f} nats", f"{baseline:.3f} (unigram)"))
        perplexity = (math.exp(figures["heldout_mlm_loss"]), math.exp(baseline))
        rows.append(("MLM perplexity", f"{perplexity[0]:.1f}", f"{perplexity[1]:.1f}"))
        rows.append(("MLM accuracy", f"{figures['heldout_mlm_accuracy']:.1%}", ""))
    if "heldout_sop_accuracy" in figures:
        rows.append(("SOP loss", f"{figures['heldout_sop_loss']:.3f} nats", f"{math.log(2):.3f}"))
        rows.append(("SOP accuracy", f"{figures['heldout_sop_accuracy']:.1%}", "50 %"))
    console.table(title, ("held out", "measured", "baseline"), rows)
