"""The micro-batch of `micro_batch: auto`: the largest that fits the device, found once for a run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size, gather_object

from sqzb.errors import RecipeError
from sqzb.model import SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.pretraining.teacher import Distilled
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training.engine import MicroBatch
from sqzb.training.run_folder import RECIPE

CPU_MOST = 64  # sequences: a CPU gains nothing from more


Trained = SqueezeBertForPreTraining | Distilled


def fitting(
    recipe: PretrainRecipe,
    model: Trained,
    accelerator: Accelerator,
    folder: Path,
    graphs: bool = False,
) -> int:
    """What the run in `folder` has recorded, where that still divides its steps; else the largest divisor of a
    process's share of a step that fits all devices.

    On a CPU, which kills what takes too much: at most 64 sequences, of which a forward writes and
    reads at most a quarter of the machine's memory, shared by its processes; a teacher's part is
    counted in. On anything else: what a forward and a backward on a made-up batch go through with,
    beside the optimizer's moments. A recorded one is kept, for dropout depends on it.

    graphs: whether CUDA graphs will take as much memory again.
    """
    if recipe.global_batch % accelerator.num_processes:
        return 1  # no micro-batch divides it, which is told where it is divided
    share = divisors(recipe.global_batch // accelerator.num_processes)
    recorded = _recorded(folder)
    if recorded in share:
        return recorded
    if accelerator.device.type == "cpu":
        room = (
            os.sysconf("SC_PHYS_PAGES")
            * os.sysconf("SC_PAGE_SIZE")
            // (4 * accelerator.num_processes)
        )
        found = max(
            n for n in share if n == 1 or (n <= CPU_MOST and _traffic(recipe, model, n) <= room)
        )
    else:
        model.to(accelerator.device)
        found = most(share, lambda n: _attempt(recipe, model, accelerator, 2 * n if graphs else n))
    return int(min(gather_object([found])))


def divisors(n: int) -> list[int]:
    """In rising order."""
    return [d for d in range(1, n + 1) if n % d == 0]


def most(sizes: Sequence[int], attempt: Callable[[int], None]) -> int:
    """The last of the rising `sizes` for which `attempt` does not run out of memory; the first where all do."""
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
    """Bytes; of a teacher, which keeps no activations: its weights, its logits and its probabilities, in fp32."""
    student = model.student if isinstance(model, Distilled) else model
    taken = total(
        costs(student.config, n, recipe.sequence_length, recipe.max_predictions, labels=2)
    ).bytes
    if isinstance(model, Distilled):
        taken += 4 * (
            model.teacher.parameters + 2 * n * recipe.max_predictions * student.config.vocab_size
        )
    return taken


def _attempt(recipe: PretrainRecipe, model: Trained, accelerator: Accelerator, n: int) -> None:
    """A forward and a backward, beside what a step holds too: two moments, the gradients that processes swap, and as
    much again for what is lost between blocks of memory."""
    held = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(4)]
    try:
        with accelerator.autocast():
            tallies = model.train()(**_made_up(recipe, n, accelerator.device)).tallies
            loss = torch.stack([tally.loss for tally in tallies.values()]).sum()
        accelerator.backward(loss)
    finally:
        model.zero_grad()
        held.clear()


def _made_up(recipe: PretrainRecipe, n: int, device: torch.device) -> MicroBatch:
    places = torch.ones(n, recipe.sequence_length, dtype=torch.long, device=device)
    asked = places[:, : recipe.max_predictions]
    return {
        **dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), places),
        **{"mlm_positions": asked, "mlm_labels": asked, "sop_labels": places[:, 0]},
    }


def _recorded(folder: Path) -> int | None:
    """The micro-batch of the run that is in the folder."""
    try:
        recorded = load_recipe(PretrainRecipe, folder / RECIPE).micro_batch
    except RecipeError:
        return None
    return recorded if isinstance(recorded, int) else None
