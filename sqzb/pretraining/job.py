"""pretrain: a corpus and a recipe to a run folder with a pretrained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from sqzb import console
from sqzb.corpus.store import MANIFEST, Corpus
from sqzb.errors import UserError
from sqzb.files import sha256
from sqzb.model import SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.model.kernels.choice import choose_kernels
from sqzb.pretraining.auto_micro_batch import fitting
from sqzb.pretraining.batches import Examples, share_of
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout
from sqzb.pretraining.report import print_heldout_report
from sqzb.pretraining.start import build_model
from sqzb.pretraining.teacher import distilled
from sqzb.recipe import PretrainRecipe
from sqzb.training.engine import Engine, MicroBatch, start_accelerator
from sqzb.training.lamb import Lamb
from sqzb.training.loop import NEVER, TrainingRun, check_folder
from sqzb.training.optimizers import parameter_groups, rate
from sqzb.training.run_folder import write_card


def pretrain(recipe: PretrainRecipe, resume: str = NEVER, extend: bool = False, dry_run: bool = False) -> Path:
    """Run the recipe, or go on with it as `resume` says: "never", "auto" or a checkpoint's path; the run's folder.

    extend: the recipe may have another number of steps than the run that goes on.
    """
    if recipe.output is None:
        raise UserError("The run has no folder: give --output DIR, or the recipe the key output.")
    folder = Path(recipe.output)
    if not dry_run:
        check_folder(folder, resume)
    run = Pretraining(recipe, folder)
    run.show_plan()
    if not dry_run:
        run.go(resume, extend)
    return folder


class Pretraining(TrainingRun):
    """A run of masked tokens and sentence order on a prepared corpus, with LAMB."""

    title = "Pretraining"
    kinds = tuple(LABELS)
    recipe: PretrainRecipe
    model: SqueezeBertForPreTraining

    def __init__(self, recipe: PretrainRecipe, folder: Path) -> None:
        accelerator = start_accelerator(recipe.precision)
        self.corpus = Corpus(recipe.corpus)
        self.model = build_model(recipe, self.corpus)
        choose_kernels(recipe, self.model, accelerator.device)  # before it is seen how much fits
        self.distilled = distilled(recipe, self.corpus, self.model, accelerator.device)
        size, trained = recipe.micro_batch, self.distilled or self.model
        micro_batch = size if isinstance(size, int) else fitting(recipe, trained, accelerator, folder)
        self.share = share_of(recipe, micro_batch, accelerator)
        self.examples = Examples(recipe, self.corpus, self.share)
        self.tokenizer = self.corpus.tokenizer
        self.steps = recipe.steps
        # As it is resolved: with the corpus's vocabulary and the micro-batch that fits.
        config = self.model.config if recipe.model is not None else None
        resolved = recipe.model_copy(update={"model": config, "micro_batch": micro_batch})
        super().__init__(resolved, folder, accelerator)

    def make_optimizer(self) -> Optimizer:
        settings = self.recipe.optimizer
        if not self.recipe.sop:
            # Without a gradient LAMB's trust ratio would turn the weight decay into a decay by the whole rate.
            for unused in (self.model.sop, self.model.transformer.pooler):
                unused.requires_grad_(False)
        groups = parameter_groups(self.model, settings.weight_decay)
        return Lamb(groups, settings.lr, settings.betas, settings.eps)

    def make_engine(self, optimizer: Optimizer) -> Engine:
        recipe, trained = self.recipe, self.distilled or self.model
        return Engine(self.accelerator, trained, optimizer, LABELS, recipe.optimizer.clip_norm, recipe.compile)

    def identity(self) -> dict[str, str]:
        folder = self.corpus.folder
        hashes = {"the corpus": sha256(folder / MANIFEST), "the vocabulary": sha256(folder / "vocab.txt")}
        return hashes if self.distilled is None else hashes | {"the teacher": self.distilled.teacher.sha256}

    def micro_batches(self, step: int) -> list[MicroBatch]:
        return self.examples.of_step(step)

    def forward_flops(self, batch: MicroBatch) -> int:
        (rows, length), predictions = batch["input_ids"].shape, batch["mlm_positions"].shape[1]
        return total(costs(self.model.config, rows, length, predictions, labels=2)).flops

    def micro_batch_numbers(self) -> Sequence[int]:
        return self.share.micro_batches

    def made_of(self, step: int) -> list[Any]:
        """(epoch, chunk) of each sequence."""
        epochs, chunks = self.examples.chunks_of_step(step)
        return list(zip(epochs.tolist(), chunks.tolist(), strict=True))

    def rate(self, step: int) -> float:
        settings = self.recipe.optimizer
        return rate(step, self.steps, settings.lr, settings.warmup, settings.decay_power)

    def checkpoint_due(self) -> bool:
        return self.done % self.recipe.checkpoint_every == 0

    def evaluation_due(self) -> bool:
        return self.done % self.recipe.evaluate_every == 0 and self.done < self.steps

    def evaluate(self) -> dict[str, float]:
        return evaluate_heldout(self.engine, self.examples, self.recipe.evaluate_sequences)

    def finish(self) -> None:
        """Write final/, then measure it on all that was held out."""
        self.write_final()
        heldout = evaluate_heldout(self.engine, self.examples, None)
        if heldout and not self.log.evaluated(self.done):
            self.log.log(self.done, **heldout)
        if self.main:
            write_card(self.folder / "final", self.folder.name, self.recipe, heldout)
            print_heldout_report(f"Pretrained {self.folder}", heldout, self.corpus)

    def show_plan(self) -> None:
        """Every number that follows from the recipe, before anything runs."""
        if not self.main:
            return
        recipe, share, config, n_train = self.recipe, self.share, self.model.config, len(self.examples.train)
        parameters = sum(p.numel() for p in self.model.parameters())
        places = share.global_batch * recipe.sequence_length
        console.out.print(
            f"SqueezeBERT {config.num_hidden_layers} x {config.hidden_size}, {parameters:,} parameters, "
            f"{f'from {recipe.start_from}' if recipe.start_from else 'from scratch'}, "
            f"{self.form}\n"
            f"global batch {share.global_batch:,} = {share.micro_batch} x {len(share.micro_batches)} accumulation x "
            f"{share.processes} process{'es' if share.processes > 1 else ''}\n"
            f"{recipe.steps:,} steps of {places:,} token places: {recipe.steps * places:,} in all, "
            f"{recipe.steps * share.global_batch / n_train:,.2f} epochs of {n_train:,} chunks; "
            f"{len(self.examples.heldout):,} held out\n"
            f"LAMB, rate {recipe.optimizer.lr:g} after {round(recipe.optimizer.warmup * recipe.steps):,} warmup steps"
        )
        if self.distilled is not None:
            settings, teacher = recipe.distillation, self.distilled.teacher
            console.out.print(
                f"taught by {settings.teacher} ({teacher.parameters:,} parameters): alpha {settings.alpha:g}, "
                f"temperature {settings.temperature:g}"
            )
