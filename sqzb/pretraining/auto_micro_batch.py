"""The micro-batch of `micro_batch: auto`: the largest that fits, chosen once for a run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size, gather_object

from sqzb.errors import RecipeError
from sqzb.model import SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.pretraining.teacher import DistillationModel
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training.engine import MicroBatch
from sqzb.training.run_folder import RECIPE

CPU_MOST = 64  # sequences: more make a CPU no faster

Trained = SqueezeBertForPreTraining | DistillationModel


def auto_micro_batch(
    recipe: PretrainRecipe,
    model: Trained,
    accelerator: Accelerator,
    folder: Path,
    graphs: bool = False,
) -> int:
    """Return the run's recorded micro-batch if it divides its steps, else the largest that fits.

    The candidates are the divisors of a process's part of a step, and the result fits all devices.

    - On a CPU, where the system kills a process that takes too much memory: at most 64 sequences,
      whose activations in a forward take at most a quarter of the machine's memory, shared by its
      processes. A teacher's part is included.
    - On a GPU: the largest for which a forward and a backward on an artificial batch succeed, with
      the memory of the optimizer's moments held.

    A recorded micro-batch is kept, because dropout depends on it.

    graphs: whether CUDA graphs will take as much memory again.
    """
    if recipe.global_batch % accelerator.num_processes:
        return 1  # no micro-batch divides the batch, which `batch_layout` reports
    sizes = divisors(recipe.global_batch // accelerator.num_processes)
    recorded = _recorded(folder)
    if recorded in sizes:
        return recorded

    if accelerator.device.type == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        room = memory // (4 * accelerator.num_processes)
        largest = 1
        for n in sizes:
            if n <= CPU_MOST and _traffic(recipe, model, n) <= room:
                largest = n
    else:
        model.to(accelerator.device)
        copies = 2 if graphs else 1
        largest = largest_fitting(sizes, lambda n: _attempt(recipe, model, accelerator, copies * n))
    return int(min(gather_object([largest])))


def divisors(n: int) -> list[int]:
    """Return the divisors of n in ascending order."""
    return [d for d in range(1, n + 1) if n % d == 0]


def largest_fitting(sizes: Sequence[int], attempt: Callable[[int], None]) -> int:
    """Return the largest of the ascending `sizes` for which `attempt` does not run out of memory.

    The smallest is not attempted, and is returned if all others fail.
    """
    left = list(sizes)

    def tried(n: int) -> int:
        if n > sizes[0]:
            attempt(n)
        return n

    def smaller() -> int:
        left.pop()
        return left[-1]

    return int(find_executable_batch_size(tried, sizes[-1], smaller)())


def _traffic(recipe: PretrainRecipe, model: Trained, n: int) -> int:
    """Return the bytes of activations of a forward on n sequences.

    A teacher keeps no activations; it adds its weights, its logits and its probabilities, in fp32.
    """
    student = model.student if isinstance(model, DistillationModel) else model
    taken = total(
        costs(student.config, n, recipe.sequence_length, recipe.max_predictions, labels=2)
    ).bytes
    if isinstance(model, DistillationModel):
        logits = n * recipe.max_predictions * student.config.vocab_size
        taken += 4 * (model.teacher.parameters + 2 * logits)
    return taken


def _attempt(recipe: PretrainRecipe, model: Trained, accelerator: Accelerator, n: int) -> None:
    """Run a forward and a backward beside as much memory as a step holds.

    A step holds two moments and the gradients that processes exchange, and as much again may be
    lost to fragmentation. The mean of the weights, if the run has one, is held too.
    """
    copies = 5 if recipe.averaging.share else 4
    held = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(copies)]
    try:
        with accelerator.autocast():
            loss_sums = model.train()(**_made_up(recipe, n, accelerator.device)).loss_sums
            loss = torch.stack([loss_sum.loss for loss_sum in loss_sums.values()]).sum()
        accelerator.backward(loss)
    finally:
        model.zero_grad()
        held.clear()


def _made_up(recipe: PretrainRecipe, n: int, device: torch.device) -> MicroBatch:
    tokens = torch.ones(n, recipe.sequence_length, dtype=torch.long, device=device)
    masked = tokens[:, : recipe.max_predictions]
    return {
        "input_ids": tokens,
        "attention_mask": tokens,
        "token_type_ids": tokens,
        "mlm_positions": masked,
        "mlm_labels": masked,
        "sop_labels": tokens[:, 0],
    }


def _recorded(folder: Path) -> int | None:
    """Return the micro-batch in the recipe of the folder's run, if there is one."""
    try:
        recorded = load_recipe(PretrainRecipe, folder / RECIPE, stored=True).micro_batch
    except RecipeError:
        return None
    return recorded if isinstance(recorded, int) else None
