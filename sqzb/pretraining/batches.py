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
from sqzb.pretraining.examples import Batch, Objectives
from sqzb.pretraining.order import samples_of_step
from sqzb.recipe import PretrainRecipe
from sqzb.tokenizer import CONTINUATION, SpecialIds
from sqzb.training.engine import MicroBatch

# Held-out examples are the same for every run on a corpus, so that runs can be compared.
EVALUATION_SEED = 0
# To how many lengths at most a compiled run pads its micro-batches: it compiles each for itself,
# and torch gives up behind eight.
LENGTHS = 8
POOL = 32  # micro-batches: held-out examples that are sorted by length together


class Share(NamedTuple):
    """The part of a step that one process computes: one in `processes` of its micro-batches."""

    global_batch: int
    micro_batch: int
    processes: int
    rank: int

    @property
    def micro_batches(self) -> range:
        """The numbers of this process's, among those of all: as many as it accumulates gradients over."""
        return range(self.rank, self.global_batch // self.micro_batch, self.processes)

    def of(self, array: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part, (n), of an array over the global batch."""
        return array.reshape(-1, self.micro_batch)[self.rank :: self.processes].ravel()


class Examples:
    """The micro-batches of any step, and of the held-out part.

    graphs: whether the model runs by CUDA graphs. Then, as in a compiled run, micro-batches of
    training have few lengths, since something is made for each.
    """

    def __init__(
        self, recipe: PretrainRecipe, corpus: Corpus, share: Share, graphs: bool = False
    ) -> None:
        self._recipe, self._share = recipe, share
        self._unit = -(-recipe.sequence_length // LENGTHS) if recipe.compile or graphs else 1
        self._special = SpecialIds(**corpus.manifest["special_ids"])
        tokens = corpus.tokenizer.get_vocab().items()
        self._continuing = np.zeros(corpus.manifest["vocab_size"], bool)
        self._continuing[[number for token, number in tokens if token.startswith(CONTINUATION)]] = (
            True
        )
        self.train = _chunks(corpus, TRAIN, recipe.sequence_length)
        self.heldout = corpus.split(HELDOUT, recipe.sequence_length)
        self._objectives = self._objectives_with(recipe.seed)

    def chunks_of_step(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, chunks) of the whole global batch."""
        return samples_of_step(step, self._share.global_batch, len(self.train), self._recipe.seed)

    def batch(self, epochs: NDArray[np.int64], numbers: NDArray[np.int64]) -> Batch:
        """The examples of training chunks, both (n), in this order."""
        return self._objectives.batch(self.train, epochs, numbers)

    def of_step(self, step: int) -> list[MicroBatch]:
        """This process's micro-batches, those of the longest examples first.

        Each is of similar lengths, padded to its longest, or a little further in a compiled run. A
        step is one sum, so it is the same in any order.
        """
        epochs, numbers = self.chunks_of_step(step)
        rows = self._share.of(_by_length(self.train, numbers))
        return list(
            self._micro_batches(
                self._objectives, self.batch(epochs[rows], numbers[rows]), self._unit
            )
        )

    def of_heldout(self, at_most: int | None) -> Iterator[MicroBatch]:
        """This process's part of the held-out examples, some of similar lengths at a time."""
        n = min(len(self.heldout), at_most or len(self.heldout))
        numbers = Permutation(len(self.heldout), EVALUATION_SEED)[np.arange(n)]
        mine = numbers[self._share.rank :: self._share.processes]
        objectives = self._objectives_with(EVALUATION_SEED)
        size = POOL * self._share.micro_batch
        for start in range(0, len(mine), size):
            pool = mine[start : start + size]
            pool = pool[_by_length(self.heldout, pool)]
            yield from self._micro_batches(
                objectives, objectives.batch(self.heldout, np.zeros_like(pool), pool), 1
            )

    def _micro_batches(
        self, objectives: Objectives, examples: Batch, unit: int
    ) -> Iterator[MicroBatch]:
        """In this order, each as long as its longest example, rounded up to a multiple of `unit`."""
        lengths = examples.attention_mask.sum(1)
        for start in range(0, len(lengths), self._share.micro_batch):
            rows = slice(start, start + self._share.micro_batch)
            length = -(-int(lengths[rows].max()) // unit) * unit
            part = objectives.part(examples, rows, min(length, self._recipe.sequence_length))
            yield {name: torch.from_numpy(array) for name, array in part._asdict().items()}

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


def _by_length(chunks: Chunks, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the chunks `numbers` stand, (n), those of the most tokens first."""
    return np.argsort(-chunks.sizes(numbers), kind="stable")


def _chunks(corpus: Corpus, split: str, length: int) -> Chunks:
    chunks = corpus.split(split, length)
    if not len(chunks):
        raise UserError(
            f"The corpus {corpus.folder} has no {split} chunks of length {length}. Prepare it "
            "from more text."
        )
    return chunks


def share_of(recipe: PretrainRecipe, micro_batch: int, accelerator: Accelerator) -> Share:
    """This process's share of the recipe's steps; UserError when they cannot be divided so."""
    share = Share(
        recipe.global_batch, micro_batch, accelerator.num_processes, accelerator.process_index
    )
    if recipe.global_batch % (share.micro_batch * share.processes):
        raise UserError(
            f"global_batch {share.global_batch} is not divided by micro_batch {share.micro_batch} "
            f"times {share.processes} processes. Change micro_batch, or the number of processes."
        )
    return share
