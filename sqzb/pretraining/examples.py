"""The micro-batches of any step and of the held-out part, for any number of processes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.corpus.store import HELDOUT, TRAIN, Chunks, Corpus
from sqzb.draws import Permutation
from sqzb.errors import UserError
from sqzb.pretraining.objectives import Objectives
from sqzb.pretraining.order import samples_of_step
from sqzb.recipe import PretrainRecipe
from sqzb.tokenizer import CONTINUATION, SpecialIds
from sqzb.training.engine import MicroBatch

# Held-out examples are the same for every run on a corpus, so that runs can be compared.
EVALUATION_SEED = 0


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
        """This process's part of an array over the global batch."""
        mine: NDArray[np.int64] = array.reshape(self.processes, -1)[self.rank]
        return mine


class Examples:
    """The micro-batches of any step, and of the held-out part."""

    def __init__(self, recipe: PretrainRecipe, corpus: Corpus, share: Share) -> None:
        self._recipe, self._share = recipe, share
        self._special = SpecialIds(**corpus.manifest["special_ids"])
        tokens = corpus.tokenizer.get_vocab().items()
        self._continuing = np.zeros(corpus.manifest["vocab_size"], bool)
        self._continuing[[number for token, number in tokens if token.startswith(CONTINUATION)]] = True
        self.train = _chunks(corpus, TRAIN, recipe.sequence_length)
        self.heldout = corpus.split(HELDOUT, recipe.sequence_length)
        self._objectives = self._objectives_with(recipe.seed)

    def chunks_of_step(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, chunks) of the whole global batch."""
        return samples_of_step(step, self._share.global_batch, len(self.train), self._recipe.seed)

    def of_step(self, step: int) -> list[MicroBatch]:
        epochs, numbers = self.chunks_of_step(step)
        batch = _tensors(self._objectives, self.train, self._share.of(epochs), self._share.of(numbers))
        parts = [torch.split(tensor, self._share.micro_batch) for tensor in batch.values()]
        return [dict(zip(batch, micro_batch, strict=True)) for micro_batch in zip(*parts, strict=True)]

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
            self._continuing,
            recipe.sequence_length,
            recipe.max_predictions,
            recipe.masking_rate,
            recipe.masking,
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


def share_of(recipe: PretrainRecipe, micro_batch: int, accelerator: Accelerator) -> Share:
    """This process's share of the recipe's steps; UserError when they cannot be divided so."""
    share = Share(recipe.global_batch, micro_batch, accelerator.num_processes, accelerator.process_index)
    if recipe.global_batch % (share.micro_batch * share.processes):
        raise UserError(
            f"global_batch {share.global_batch} is not divided by micro_batch {share.micro_batch} times "
            f"{share.processes} processes. Change micro_batch, or the number of processes."
        )
    return share
