"""The micro-batches of any step and of the held-out part, for any number of processes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sqzb.console import counted
from sqzb.corpus.store import HELDOUT, TRAIN, Chunks, Corpus
from sqzb.draws import Permutation
from sqzb.errors import UserError
from sqzb.model.heads import IGNORED
from sqzb.pretraining.examples import MOST_SPECIAL, Batch, Objectives, unpadded
from sqzb.pretraining.order import samples_of_step
from sqzb.recipe import PretrainRecipe
from sqzb.tokenizer import CONTINUATION, SpecialIds
from sqzb.training.engine import MicroBatch

# Held-out examples are the same for every run on a corpus, so that runs can be compared.
EVALUATION_SEED = 0
# Number of lengths to which a compiled run pads its micro-batches, at most: torch compiles each
# length on its own, and recompiles at most eight times by default.
LENGTHS = 8
# Share of the tokens, single ones, that the yardstick masks: BERT's. The yardstick is the held-out
# figure that compares recipes of any masking.
YARDSTICK_RATE = 0.15
# Masking rates of a run whose rate changes. They are few, because the number of predictions is a
# part of the shape that a compiled run has compiled.
RATES = 4
# The number of rows without padding is a multiple of this part of the padded micro-batch, where
# each number of rows is compiled or recorded on its own. Micro-batches have about the same tokens,
# so few numbers come up.
ROW_UNITS = 64
POOL = 32  # micro-batches whose held-out examples are sorted by length together


class BatchLayout(NamedTuple):
    """The division of a step among processes; each computes every `processes`-th micro-batch."""

    global_batch: int
    micro_batch: int
    processes: int
    rank: int

    @property
    def micro_batches(self) -> range:
        """Numbers of this process's micro-batches in a step; it accumulates gradients over them."""
        return range(self.rank, self.global_batch // self.micro_batch, self.processes)

    def of(self, array: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part, (n), of an array over the global batch."""
        return array.reshape(-1, self.micro_batch)[self.rank :: self.processes].ravel()

    def dealt(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `order`, (global_batch) by length, so that micro-batches get about equal tokens.

        The examples are dealt out one by one, and every other round in reverse.
        """
        rounds = order.reshape(self.micro_batch, -1).copy()
        rounds[1::2] = rounds[1::2, ::-1]
        return rounds.T.ravel()


class Examples:
    """The micro-batches of any step, and of the held-out part.

    graphs: whether the model runs by CUDA graphs. Then, as in a compiled run, the micro-batches of
    training have few lengths, because each length has a graph of its own.
    """

    def __init__(
        self, recipe: PretrainRecipe, corpus: Corpus, layout: BatchLayout, graphs: bool = False
    ) -> None:
        self._recipe, self._layout = recipe, layout
        self._few_shapes = recipe.compile or graphs
        self._unit = -(-recipe.sequence_length // LENGTHS) if self._few_shapes else 1
        self._special = SpecialIds(**corpus.manifest["special_ids"])
        tokens = corpus.tokenizer.get_vocab().items()
        self._continuing = np.zeros(corpus.manifest["vocab_size"], bool)
        continuing = [number for token, number in tokens if token.startswith(CONTINUATION)]
        self._continuing[continuing] = True
        self._check = corpus.hash_check
        self.train = _chunks(corpus, TRAIN, recipe.sequence_length)
        self.heldout = corpus.split(HELDOUT, recipe.sequence_length)
        self._objectives = self._objectives_with(recipe.seed, recipe)

    def chunks_of_step(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (epochs, chunks) of the whole global batch, each (global_batch)."""
        return samples_of_step(step, self._layout.global_batch, len(self.train), self._recipe.seed)

    def batch(self, epochs: NDArray[np.int64], numbers: NDArray[np.int64]) -> Batch:
        """Return the examples of training chunks, in this order.

        epochs, numbers: epoch and number of each chunk, both (n).
        """
        return self._objectives.batch(self.train, epochs, numbers)

    def of_step(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches, those with the longest examples first.

        The examples of a micro-batch have similar lengths and are padded to the longest, or a
        little further in a compiled run. The gradient of a step is one sum, so their order has no
        effect.

        With the recipe's `unpad`, micro-batches have no padding, and about the same number of
        tokens.
        """
        epochs, numbers = self.chunks_of_step(step)
        objectives = self._objectives_of(step)
        with self._check.explaining():
            order = _by_length(self.train, numbers)
            if self._recipe.unpad:
                dealt = self._layout.dealt(order)
                return self._unpadded(objectives, epochs[dealt], numbers[dealt])
            rows = self._layout.of(order)
            examples = objectives.batch(self.train, epochs[rows], numbers[rows])
            return list(self._micro_batches(objectives, examples, self._unit))

    def _objectives_of(self, step: int) -> Objectives:
        """Return the objectives of a step, whose masking rate changes with each part of the run."""
        first, last = self._recipe.masking_rate, self._recipe.masking_rate_end
        if last is None:
            return self._objectives
        part = min(RATES - 1, RATES * step // self._recipe.steps)
        rate = first + (last - first) * part / (RATES - 1)
        recipe = self._recipe.model_copy(update={"masking_rate": rate})
        return self._objectives_with(recipe.seed, recipe)

    @property
    def has_yardstick_masks(self) -> bool:
        """Whether the recipe's own held-out examples are those of the yardstick."""
        recipe, yardstick = self._recipe, self._yardstick_recipe()
        return (
            recipe.masking == yardstick.masking
            and recipe.masking_rate == yardstick.masking_rate
            and recipe.max_predictions >= yardstick.max_predictions
        )

    def of_heldout(self, at_most: int | None, yardstick: bool = False) -> Iterator[MicroBatch]:
        """Yield this process's part of the held-out examples, in micro-batches of similar lengths.

        at_most: number of held-out examples to use; None for all.
        yardstick: mask as the yardstick does, in place of the recipe's masks.
        """
        n = min(len(self.heldout), at_most or len(self.heldout))
        numbers = Permutation(len(self.heldout), EVALUATION_SEED)[np.arange(n)]
        mine = numbers[self._layout.rank :: self._layout.processes]
        recipe = self._yardstick_recipe() if yardstick else self._recipe
        objectives = self._objectives_with(EVALUATION_SEED, recipe)
        size = POOL * self._layout.micro_batch
        for start in range(0, len(mine), size):
            with self._check.explaining():
                pool = mine[start : start + size]
                pool = pool[_by_length(self.heldout, pool)]
                examples = objectives.batch(self.heldout, np.zeros_like(pool), pool)
                micro_batches = list(self._micro_batches(objectives, examples, 1))
            yield from micro_batches
        self.check_corpus()

    def check_corpus(self) -> None:
        """Wait until the corpus is compared with its hashes.

        Raises:
            UserError: files are damaged.
        """
        self._check.wait()

    def _micro_batches(
        self, objectives: Objectives, examples: Batch, unit: int
    ) -> Iterator[MicroBatch]:
        """Yield micro-batches in order, each padded to its longest example.

        The length is rounded up to a multiple of `unit`.
        """
        lengths = examples.attention_mask.sum(1)
        for start in range(0, len(lengths), self._layout.micro_batch):
            rows = slice(start, start + self._layout.micro_batch)
            length = -(-int(lengths[rows].max()) // unit) * unit
            part = objectives.part(examples, rows, min(length, self._recipe.sequence_length))
            yield {name: torch.from_numpy(array) for name, array in part._asdict().items()}

    def _unpadded(
        self, objectives: Objectives, epochs: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> list[MicroBatch]:
        """Return this process's micro-batches without padding.

        With few shapes, all micro-batches of the step have the same shape, whatever the number of
        processes. Rows behind the last token, and empty predictions, fill up to the shape.

        epochs, numbers: epoch and number of each chunk of the step, micro-batch after micro-batch.
        """
        size = self._layout.micro_batch
        shape = self._common_shape(objectives, numbers) if self._few_shapes else None
        own = self._layout.of(epochs), self._layout.of(numbers)
        examples = objectives.batch(self.train, *own)
        micro_batches: list[MicroBatch] = []
        for start in range(0, len(examples.input_ids), size):
            part = Batch(*(array[start : start + size] for array in examples))
            tokens = np.count_nonzero(part.attention_mask)
            asked = np.count_nonzero(part.mlm_labels != IGNORED)
            rows, predictions = shape or (tokens, max(1, asked))
            batch = unpadded(part, rows, predictions, self._special.pad)
            micro_batches.append({name: torch.from_numpy(a) for name, a in batch._asdict().items()})
        return micro_batches

    def _common_shape(self, objectives: Objectives, numbers: NDArray[np.int64]) -> tuple[int, int]:
        """Return rows and predictions in which each micro-batch of a step fits.

        numbers: as in `_unpadded`.
        """
        size, recipe = self._layout.micro_batch, self._recipe
        tokens = self.train.sizes(numbers) + MOST_SPECIAL
        asked = objectives.predictions(tokens)
        rows, predictions = (
            int(of_example.reshape(-1, size).sum(1).max()) for of_example in (tokens, asked)
        )
        return (
            _filled_up(rows, size * recipe.sequence_length),
            _filled_up(predictions, size * recipe.max_predictions),
        )

    def _yardstick_recipe(self) -> PretrainRecipe:
        """Return the recipe with the yardstick's masks, as many as its rate asks for."""
        most = max(1, round(YARDSTICK_RATE * self._recipe.sequence_length))
        masks = {"masking": "token", "masking_rate": YARDSTICK_RATE, "max_predictions": most}
        return self._recipe.model_copy(update=masks)

    def _objectives_with(self, seed: int, recipe: PretrainRecipe) -> Objectives:
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


def _filled_up(rows: int, most: int) -> int:
    """Return `rows` rounded up to a whole number of units, but not over `most`."""
    unit = -(-most // ROW_UNITS)
    return min(-(-rows // unit) * unit, most)


def _by_length(chunks: Chunks, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order, (n), that sorts chunks by their number of tokens, the longest first."""
    return np.argsort(-chunks.sizes(numbers), kind="stable")


def _chunks(corpus: Corpus, split: str, length: int) -> Chunks:
    chunks = corpus.split(split, length)
    if not len(chunks):
        raise UserError(
            f"The corpus {corpus.folder} has no {split} chunks of length {length}. Prepare it "
            "from more text."
        )
    return chunks


def batch_layout(recipe: PretrainRecipe, micro_batch: int, accelerator: Accelerator) -> BatchLayout:
    """Return this process's part of the recipe's steps.

    Raises:
        UserError: the global batch cannot be divided into micro-batches for the processes.
    """
    layout = BatchLayout(
        recipe.global_batch, micro_batch, accelerator.num_processes, accelerator.process_index
    )
    if recipe.global_batch % (layout.micro_batch * layout.processes):
        raise UserError(
            f"global_batch {layout.global_batch} is not a multiple of micro_batch "
            f"{layout.micro_batch} times {counted(layout.processes, 'process', 'processes')}. "
            "Change micro_batch, or the number of processes."
        )
    return layout
