"""Micro-batches without padding: the same examples in the same steps, and the same run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from pretraining_runs import at, equal, weights
from sqzb.corpus.store import Corpus
from sqzb.errors import RecipeError
from sqzb.model import SqueezeBertConfig
from sqzb.model.heads import IGNORED
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.job import Pretraining, pretrain
from sqzb.recipe import PretrainRecipe, load_recipe
from sqzb.training.engine import MicroBatch
from stopped_runs import lines

Example = list[list[int]]


def made(corpus: Corpus, layout: BatchLayout, graphs: bool = False, unpad: bool = True) -> Examples:
    recipe = PretrainRecipe(sequence_length=32, max_predictions=5, seed=3, unpad=unpad)
    return Examples(recipe, corpus, layout, graphs)


def examples_of(batch: MicroBatch) -> list[Example]:
    """Each example as ids, types, positions and labels of its predictions, and its SOP label."""
    padded = batch["input_ids"].ndim == 2
    tokens = batch["attention_mask"].long().sum(1).tolist()
    of_each, start = [], 0
    for number, n in enumerate(tokens):
        ids, types = batch["input_ids"], batch["token_type_ids"]
        positions, labels = batch["mlm_positions"], batch["mlm_labels"]
        if padded:
            ids, types, positions, labels = (x[number] for x in (ids, types, positions, labels))
            first = 0
        else:
            first = start
        asked = (labels != IGNORED) & (positions >= first) & (positions < first + n)
        rows = slice(first, first + n)
        predictions = [(positions[asked] - first).tolist(), labels[asked].tolist()]
        sop = [int(batch["sop_labels"][number])]
        of_each.append([ids[rows].tolist(), types[rows].tolist(), *predictions, sop])
        start += n
    return of_each


def all_examples(batches: list[MicroBatch]) -> list[Example]:
    return sorted(example for batch in batches for example in examples_of(batch))


@given(
    micro_batch=st.sampled_from([1, 2, 8, 24]),
    processes=st.integers(1, 3),
    accumulation=st.integers(1, 4),
    step=st.integers(0, 200),
    graphs=st.booleans(),
)
@settings(max_examples=scaled(15))
def test_a_step_has_the_examples_of_the_padded_step(
    corpus: Corpus, micro_batch: int, processes: int, accumulation: int, step: int, graphs: bool
) -> None:
    size = micro_batch * processes * accumulation
    layouts = [BatchLayout(size, micro_batch, processes, rank) for rank in range(processes)]
    of_each = [made(corpus, layout, graphs).of_step(step) for layout in layouts]
    whole = BatchLayout(size, micro_batch, 1, 0)
    due = made(corpus, whole, unpad=False).of_step(step)
    assert all_examples([batch for part in of_each for batch in part]) == all_examples(due)

    # A micro-batch is the same in whichever process it is computed, because dropout depends on it.
    alone = made(corpus, whole, graphs).of_step(step)
    assert len(alone) == len(due)
    for layout, of_one in zip(layouts, of_each, strict=True):
        for number, batch in zip(layout.micro_batches, of_one, strict=True):
            assert all(map(torch.equal, batch.values(), alone[number].values()))


def test_without_a_fixed_shape_no_row_and_no_prediction_is_empty(corpus: Corpus) -> None:
    for batch in made(corpus, BatchLayout(240, 24, 1, 0)).of_step(0):
        assert len(batch["input_ids"]) == int(batch["attention_mask"].sum())
        assert bool((batch["mlm_labels"] != IGNORED).all())


def test_with_graphs_few_shapes_come_up_and_little_is_filled_up(corpus: Corpus) -> None:
    layout = BatchLayout(240, 24, 1, 0)
    batches = [
        batch for step in range(20) for batch in made(corpus, layout, graphs=True).of_step(step)
    ]
    shapes = {(len(batch["input_ids"]), len(batch["mlm_labels"])) for batch in batches}
    tokens = [int(batch["attention_mask"].sum()) for batch in batches]
    rows = [len(batch["input_ids"]) for batch in batches]
    assert 1 <= len(shapes) <= 12
    assert all(n <= m <= 24 * 32 for n, m in zip(tokens, rows, strict=True))
    # Micro-batches of a step have about equal tokens: each differs from the mean by an example.
    by_step = np.array(tokens).reshape(20, -1)
    assert (np.ptp(by_step, axis=1) <= 32).all()
    assert sum(rows) < 1.15 * sum(tokens)


@pytest.fixture(scope="module")
def recipe(corpus: Corpus) -> PretrainRecipe:
    """Six steps without dropout, whose draws depend on the shape of a micro-batch."""
    return PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=16,
        max_predictions=3,
        model=SqueezeBertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        steps=6,
        global_batch=32,
        micro_batch=8,
        log_every=1,
        evaluate_sequences=20,
        checkpoint_every=2,
    )


def test_a_run_has_the_losses_of_the_padded_run(recipe: PretrainRecipe, tmp_path: Path) -> None:
    padded = pretrain(at(recipe, tmp_path / "padded"))
    unpadded = pretrain(at(recipe, tmp_path / "unpadded", unpad=True))
    for one, other in zip(lines(padded), lines(unpadded), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=1e-4), name
    for name, tensor in weights(padded).items():
        torch.testing.assert_close(weights(unpadded)[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_run(recipe: PretrainRecipe, tmp_path: Path) -> None:
    assert recipe.model is not None
    dropped = recipe.model.model_copy(update={"hidden_dropout_prob": 0.1})
    whole = pretrain(at(recipe, tmp_path / "whole", unpad=True, model=dropped))
    shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-0000006")
    before, due = lines(whole), weights(whole)
    again = pretrain(at(recipe, tmp_path / "again", unpad=True, model=dropped), resume="auto")
    assert lines(again) == before and equal(weights(again), due)


def test_the_plan_names_it_and_operations_are_those_of_tokens(
    recipe: PretrainRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(at(recipe, tmp_path / "run", unpad=True), dry_run=True)
    assert "1 process, without padding" in " ".join(capsys.readouterr().out.split())
    flops = []
    for unpad in (False, True):
        job = Pretraining(at(recipe, tmp_path / "run", unpad=unpad), tmp_path / "run")
        flops.append(sum(map(job.forward_flops, job.micro_batches(0))))
    assert flops[1] < flops[0]


def test_operations_of_equal_lengths_are_those_of_the_padded_form(
    recipe: PretrainRecipe, tmp_path: Path
) -> None:
    job = Pretraining(at(recipe, tmp_path / "run"), tmp_path / "run")
    ones = torch.ones(4, 16, dtype=torch.long)
    padded = {"input_ids": ones, "attention_mask": ones, "mlm_positions": ones[:, :3]}
    rows = {name: tensor.flatten() for name, tensor in padded.items()}
    assert job.forward_flops(padded) == job.forward_flops({**rows, "attention_mask": ones})


def test_a_teacher_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {}\nunpad: true\ndistillation: {teacher: bert}\n")
    with pytest.raises(RecipeError, match="unpad: a teacher reads padded sequences"):
        load_recipe(PretrainRecipe, tmp_path / "recipe.yaml")
