"""pretrain: a corpus and a recipe to a run folder with a pretrained model."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.corpus.store import Corpus
from sqzb.errors import RecipeError, UserError
from sqzb.files import whole_folder
from sqzb.pretraining.examples import Examples, share_of
from sqzb.pretraining.optimizer import Lamb
from sqzb.pretraining.start import build_model
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, MicroBatch, StepResult, dropout_key, start_accelerator
from sqzb.training.optimization import parameter_groups, rate
from sqzb.training.runlog import RECIPE, Pace, RunLog, refuse_used, write_card

LABELS = {"mlm": "mlm_labels", "sop": "sop_labels"}
FIGURES = [f"{name}_{kind}" for name in LABELS for kind in ("loss", "accuracy")]
# What decides of which chunks a step is made, besides the corpus.
SAME_TO_RESUME = ("seed", "global_batch", "sequence_length")


def pretrain(recipe: PretrainRecipe, resume: bool = False, dry_run: bool = False) -> Path:
    """Run the recipe, or go on with it from the newest checkpoint; the run's folder."""
    if recipe.output is None:
        raise UserError("The run has no folder: give --output DIR, or the recipe the key output.")
    folder = Path(recipe.output)
    checkpoint = checkpoints.newest(folder) if resume else None
    if not resume and not dry_run:
        refuse_used(folder, ", --resume to go on with it")
    if checkpoint is not None:
        _check_same_data(folder, recipe)
    run = Run(recipe, folder)
    run.show_plan()
    if not dry_run:
        run.begin(checkpoint)
        run.train()
        run.finish()
    return folder


class Run:
    """A run's parts, and what happens at each of its moments; `done` steps are behind it."""

    def __init__(self, recipe: PretrainRecipe, folder: Path) -> None:
        self.folder = folder
        self.accelerator = start_accelerator(recipe.precision)
        self.share = share_of(recipe, self.accelerator)
        self.corpus = Corpus(recipe.corpus)
        self.examples = Examples(recipe, self.corpus, self.share)
        self.model = build_model(recipe, self.corpus)
        # As it is resolved: with the corpus's vocabulary.
        self.recipe = recipe.model_copy(update={"model": self.model.config}) if recipe.model is not None else recipe
        self.log = RunLog(folder, self.accelerator.is_main_process)
        self.done = self.tokens = 0

    def begin(self, checkpoint: Path | None) -> None:
        """Put the model on its device and the optimizer beside it, as they were at the checkpoint."""
        recipe, settings = self.recipe, self.recipe.optimizer
        if not recipe.sop:
            # Without a gradient LAMB's trust ratio would turn the weight decay into a decay by the whole rate.
            for unused in (self.model.sop, self.model.transformer.pooler):
                unused.requires_grad_(False)
        groups = parameter_groups(self.model, settings.weight_decay)
        self.optimizer = Lamb(groups, settings.lr, settings.betas, settings.eps)
        self.engine = Engine(self.accelerator, self.model, self.optimizer, LABELS, settings.clip_norm, recipe.compile)
        if checkpoint is not None:
            state = checkpoints.load(checkpoint, self.model, self.optimizer)
            self.done, self.tokens = state["step"], state["tokens"]
        self.accelerator.wait_for_everyone()  # no process may find the folder used by another
        self.log.start(recipe, recipe.seed, str(self.accelerator.device), self.share.processes)
        self.log.forget_after(self.done)

    def train(self) -> None:
        """Every step that is left. Saves come before evaluations, so that neither costs the other."""
        recipe, last = self.recipe, self.recipe.steps
        pace = Pace(self.tokens)
        with (
            ThreadPoolExecutor(1) as ahead,
            console.bar("Pretraining", last, self.done, self.accelerator.is_main_process) as bar,
        ):
            upcoming = ahead.submit(self.examples.of_step, self.done)
            while self.done < last:
                batches = upcoming.result()
                if self.done + 1 < last:
                    upcoming = ahead.submit(self.examples.of_step, self.done + 1)
                lr, result = self.step(batches)
                if self.done % recipe.log_every == 0 or self.done == last or not result.finite:
                    self.log_step(lr, result, pace.tokens_per_second(self.tokens))
                bar.advance(text=f"loss {result.loss:.3f}  mlm {result.get('mlm_accuracy', 0):.1%}")
                if self.done % recipe.checkpoint_every == 0 or self.done == last:
                    self.save()
                if self.done % recipe.evaluate_every == 0 and self.done < last:
                    with pace.paused():
                        self.evaluate(recipe.evaluate_sequences)

    def step(self, batches: list[MicroBatch]) -> tuple[float, StepResult]:
        """One optimizer step on this process's micro-batches of it; its rate and figures."""
        recipe, settings, share = self.recipe, self.recipe.optimizer, self.share
        lr = rate(self.done, recipe.steps, settings.lr, settings.warmup, settings.decay_power)
        numbers = range(share.rank * share.micro_batches, (share.rank + 1) * share.micro_batches)
        result = self.engine.step(batches, lr, [dropout_key(recipe.seed, self.done, number) for number in numbers])
        self.tokens += int(self.engine.total(sum(int(batch["attention_mask"].sum()) for batch in batches)))
        self.done += 1
        return lr, result

    def log_step(self, lr: float, result: StepResult, tokens_per_second: float) -> None:
        if not result.finite and self.accelerator.is_main_process:
            console.warn(f"step {self.done}: loss or gradient is not finite; the weights were left as they were.")
        # A figure that the step had no label for is null.
        figures: dict[str, Any] = dict.fromkeys(FIGURES) | result
        speed = round(tokens_per_second)
        self.log.log(self.done, tokens=self.tokens, loss=result.loss, **figures, lr=lr, tokens_per_second=speed)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            checkpoints.save(
                self.folder,
                self.done,
                self.model,
                self.optimizer,
                self.corpus.tokenizer,
                {"tokens": self.tokens},
                self.recipe.keep_checkpoints,
            )

    def evaluate(self, at_most: int | None) -> dict[str, float]:
        """Measure and log the figures on the held-out part; none where there is no such part."""
        if not len(self.examples.heldout):
            return {}
        measured = self.engine.evaluate(self.examples.of_heldout(at_most))
        figures = {f"heldout_{name}": value for name, value in measured.items()}
        self.log.log(self.done, **figures)
        return figures

    def finish(self) -> None:
        """Write final/, then measure it on all that was held out."""
        main, final = self.accelerator.is_main_process, self.folder / "final"
        self.accelerator.wait_for_everyone()
        if main:
            with whole_folder(final) as aside:
                self.model.save_pretrained(aside, self.corpus.tokenizer)
                write_card(aside, self.folder.name, self.recipe, {})
        heldout = self.evaluate(None)
        if main:
            write_card(final, self.folder.name, self.recipe, heldout)
            report(f"Pretrained {self.folder}", heldout, self.corpus)

    def show_plan(self) -> None:
        """Every number that follows from the recipe, before anything runs."""
        if not self.accelerator.is_main_process:
            return
        recipe, share, config, n_train = self.recipe, self.share, self.model.config, len(self.examples.train)
        parameters = sum(p.numel() for p in self.model.parameters())
        places = share.global_batch * recipe.sequence_length
        console.out.print(
            f"SqueezeBERT {config.num_hidden_layers} x {config.hidden_size}, {parameters:,} parameters, "
            f"{f'from {recipe.start_from}' if recipe.start_from else 'from scratch'}, "
            f"on {self.accelerator.device} in {recipe.precision}\n"
            f"global batch {share.global_batch:,} = {share.micro_batch} x {share.micro_batches} accumulation x "
            f"{share.processes} process{'es' if share.processes > 1 else ''}\n"
            f"{recipe.steps:,} steps of {places:,} token places: {recipe.steps * places:,} in all, "
            f"{recipe.steps * share.global_batch / n_train:,.2f} epochs of {n_train:,} chunks; "
            f"{len(self.examples.heldout):,} held out\n"
            f"LAMB, rate {recipe.optimizer.lr:g} after {round(recipe.optimizer.warmup * recipe.steps):,} warmup steps"
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


def report(title: str, figures: dict[str, float], corpus: Corpus) -> None:
    """The closing table of what was learnt, beside what knows nothing but frequencies."""
    baseline = corpus.manifest["heldout_unigram_nats"]
    rows = []
    if "heldout_mlm_loss" in figures:
        rows.append(("MLM loss", f"{figures['heldout_mlm_loss']:.3f} nats", f"{baseline:.3f} (unigram)"))
        perplexity = (_perplexity(figures["heldout_mlm_loss"]), _perplexity(baseline))
        rows.append(("MLM perplexity", f"{perplexity[0]:.1f}", f"{perplexity[1]:.1f}"))
        rows.append(("MLM accuracy", f"{figures['heldout_mlm_accuracy']:.1%}", ""))
    if "heldout_sop_accuracy" in figures:
        rows.append(("SOP loss", f"{figures['heldout_sop_loss']:.3f} nats", f"{math.log(2):.3f}"))
        rows.append(("SOP accuracy", f"{figures['heldout_sop_accuracy']:.1%}", "50 %"))
    console.table(title, ("held out", "measured", "baseline"), rows)


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
