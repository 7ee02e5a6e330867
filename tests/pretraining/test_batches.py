"""Micro-batches of similar lengths: all that a step or the held-out part is made of, and no place
too many.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from examples import scaled
from sqzb.corpus.store import Corpus
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import LENGTHS, BatchLayout, Examples
from sqzb.recipe import PretrainRecipe
from sqzb.training.engine import MicroBatch

PLACES, SLOTS = ("input_ids", "attention_mask", "token_type_ids"), ("mlm_positions", "mlm_labels")
# Of a padded place and an empty slot; padding of the corpus's vocabulary is token 0.
FILLING = {**dict.fromkeys((*PLACES, "mlm_positions"), 0), "mlm_labels": IGNORED}


def made(corpus: Corpus, layout: BatchLayout, length: int = 32, compile: bool = False) -> Examples:
    recipe = PretrainRecipe(sequence_length=length, max_predictions=5, compile=compile, seed=3)
    return Examples(recipe, corpus, layout)


def rows(batches: list[MicroBatch]) -> list[list[list[int]]]:
    """Each example as its arrays, without what only fills it up, in an order of its own."""

    def row(batch: MicroBatch, n: int) -> list[list[int]]:
        tokens, asked = int(batch["attention_mask"][n].sum()), batch["mlm_labels"][n] != IGNORED
        return [
            *(batch[name][n, :tokens].tolist() for name in PLACES),
            *(batch[name][n][asked].tolist() for name in SLOTS),
            [int(batch["sop_labels"][n])],
        ]

    return sorted(row(batch, n) for batch in batches for n in range(len(batch["input_ids"])))


def filled(batch: MicroBatch) -> bool:
    """Whether what stands behind the tokens and the predictions only fills up."""
    behind: dict[str, Tensor] = dict.fromkeys(PLACES, batch["attention_mask"] == 0)
    behind |= dict.fromkeys(SLOTS, batch["mlm_labels"] == IGNORED)
    return all(bool((batch[name][where] == FILLING[name]).all()) for name, where in behind.items())


@given(
    micro_batch=st.sampled_from([1, 2, 8, 24]),
    processes=st.integers(1, 3),
    accumulation=st.integers(1, 4),
    step=st.integers(0, 200),
    compile=st.booleans(),
)
@settings(max_examples=scaled(20))
def test_a_step_has_the_same_examples_however_it_is_divided(
    corpus: Corpus, micro_batch: int, processes: int, accumulation: int, step: int, compile: bool
) -> None:
    size = micro_batch * processes * accumulation
    layouts = [BatchLayout(size, micro_batch, processes, rank) for rank in range(processes)]
    of_each = [made(corpus, layout, compile=compile).of_step(step) for layout in layouts]
    assert [len(of_one) for of_one in of_each] == [len(layout.micro_batches) for layout in layouts]
    batches = [batch for of_one in of_each for batch in of_one]
    assert all(len(tensor) == micro_batch for batch in batches for tensor in batch.values())
    assert all(tensor.is_contiguous() for batch in batches for tensor in batch.values())

    whole = made(corpus, BatchLayout(size, size, 1, 0))
    uncut = whole.batch(*whole.chunks_of_step(step))
    assert uncut.input_ids.shape == (size, 32) and uncut.mlm_labels.shape == (size, 5)
    due = {name: torch.from_numpy(array) for name, array in uncut._asdict().items()}
    assert rows(batches) == rows([due])
    assert all(map(filled, batches))

    # Each micro-batch has its own, too, whichever process computes it: dropout goes by its number.
    alone = made(corpus, BatchLayout(size, micro_batch, 1, 0), compile=compile).of_step(step)
    assert len(alone) == len(batches) == accumulation * processes
    for layout, of_one in zip(layouts, of_each, strict=True):
        for number, batch in zip(layout.micro_batches, of_one, strict=True):
            assert all(map(torch.equal, batch.values(), alone[number].values()))


def test_each_micro_batch_is_as_long_as_its_longest_example(corpus: Corpus) -> None:
    batches = made(corpus, BatchLayout(240, 24, 1, 0)).of_step(0)
    lengths = [batch["input_ids"].shape[1] for batch in batches]
    assert lengths == [int(batch["attention_mask"].sum(1).max()) for batch in batches]
    assert len(set(lengths)) > 3 and max(lengths) <= 32
    # By the tokens of their chunks, to which an example of two segments adds one token more.
    for longer, shorter in pairwise(batches):
        assert longer["attention_mask"].sum(1).min() >= shorter["attention_mask"].sum(1).max() - 1
    # BERT's rule of how many are masked, for so many tokens.
    assert [batch["mlm_labels"].shape[1] for batch in batches] == [
        max(1, min(5, round(0.15 * n))) for n in lengths
    ]


@pytest.mark.parametrize("most", [5, LENGTHS])  # 5 does not divide the sequence lengths
@pytest.mark.parametrize("length", [16, 32])
def test_a_compiled_run_has_few_lengths(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, length: int, most: int
) -> None:
    monkeypatch.setattr("sqzb.pretraining.batches.LENGTHS", most)
    layout, unit = BatchLayout(64, 4, 1, 0), -(-length // most)
    examples, exact = (made(corpus, layout, length, compile) for compile in (True, False))
    found = set()
    for step in range(20):
        for batch, cut in zip(examples.of_step(step), exact.of_step(step), strict=True):
            shape, longest = batch["input_ids"].shape[1], cut["input_ids"].shape[1]
            assert longest <= shape < longest + unit and (shape % unit == 0 or shape == length)
            found.add((shape, batch["mlm_labels"].shape[1]))
    assert 2 < len(found) <= most <= torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("at_most", [None, 50])
def test_what_is_held_out_is_measured_once_with_little_padding(
    corpus: Corpus, processes: int, at_most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqzb.pretraining.batches.POOL", 8)
    of_each = [
        list(made(corpus, BatchLayout(4, 4, processes, rank)).of_heldout(at_most))
        for rank in range(processes)
    ]
    (uncut,) = made(corpus, BatchLayout(10_000, 10_000, 1, 0)).of_heldout(at_most)
    batches = [batch for of_one in of_each for batch in of_one]
    assert rows(batches) == rows([uncut]) and all(map(filled, batches))
    padded = np.mean([1 - batch["attention_mask"].double().mean() for batch in batches])
    assert padded < (1 - uncut["attention_mask"].double().mean()) / 2
    assert at_most or len(uncut["input_ids"]) > 4 * 8  # more than one pool
