"""Rows without padding have the numbers of padded sequences, in fp64, by kernels and compiled."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from examples import scaled
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining, SqueezeBertModel
from sqzb.model.heads import IGNORED
from sqzb.model.layers import use_kernels
from sqzb.model.unpadding import sequence_rows

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
PREDICTIONS = 3


def examples(config: SqueezeBertConfig, lengths: list[int], seed: int) -> dict[str, Tensor]:
    """Padded examples with one to three predictions each."""
    draw = torch.Generator().manual_seed(seed)
    batch, length = len(lengths), max(lengths)
    ends = torch.tensor(lengths)
    mask = (torch.arange(length) < ends[:, None]).long()
    shape = (batch, length)
    asked = torch.arange(PREDICTIONS) < torch.arange(1, batch + 1)[:, None]
    labels = torch.randint(0, config.vocab_size, (batch, PREDICTIONS), generator=draw)
    positions = torch.randint(0, 10**6, (batch, PREDICTIONS), generator=draw) % ends[:, None]
    return {
        "input_ids": torch.randint(1, config.vocab_size, shape, generator=draw) * mask,
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, shape, generator=draw) * mask,
        "mlm_positions": positions * asked,
        "mlm_labels": torch.where(asked, labels, IGNORED),
        "sop_labels": torch.randint(0, 2, (batch,), generator=draw),
    }


def without_padding(padded: dict[str, Tensor], filling: int) -> dict[str, Tensor]:
    """The same examples, written out row by row, with `filling` rows of no sequence behind them."""
    mask = padded["attention_mask"].bool()
    lengths = mask.sum(1).tolist()
    positions, labels = [], []
    for number, (of_row, asked) in enumerate(
        zip(padded["mlm_positions"].tolist(), padded["mlm_labels"].tolist(), strict=True)
    ):
        before = sum(lengths[:number])
        for position, label in zip(of_row, asked, strict=True):
            if label != IGNORED:
                positions.append(before + position)
                labels.append(label)
    rows = {name: padded[name][mask] for name in ("input_ids", "token_type_ids")}
    # The filling is no token of its own: the model must not see it.
    behind = {name: torch.cat([x, torch.ones(filling, dtype=x.dtype)]) for name, x in rows.items()}
    return {
        **behind,
        "attention_mask": padded["attention_mask"].to(torch.int8),
        "mlm_positions": torch.tensor([*positions, 0]),
        "mlm_labels": torch.tensor([*labels, IGNORED]),
        "sop_labels": padded["sop_labels"],
    }


def trained(model: SqueezeBertForPreTraining, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses, hits and the gradient of each parameter."""
    loss_sums = model(**batch).loss_sums
    model.zero_grad()
    (loss_sums["mlm"].loss + 3 * loss_sums["sop"].loss).backward()
    numbers = {f"{name} {n}": x for name, both in loss_sums.items() for n, x in enumerate(both)}
    return numbers | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@settings(max_examples=scaled(7))
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    filling=st.integers(0, 30),
    seed=st.integers(0, 999),
)
def test_loss_and_gradients_are_those_of_padded_sequences(
    tiny: Config, scramble: Scramble, lengths: list[int], filling: int, seed: int
) -> None:
    model = scramble(SqueezeBertForPreTraining(tiny()), seed).double()
    padded = examples(model.config, lengths, seed)
    due, got = trained(model, padded), trained(model, without_padding(padded, filling))
    assert due.keys() == got.keys()
    for name, tensor in due.items():
        assert_close(got[name], tensor, rtol=1e-10, atol=1e-11, msg=name)


def test_evaluation_without_gradients_is_the_same(tiny: Config, scramble: Scramble) -> None:
    model = scramble(SqueezeBertForPreTraining(tiny())).double().eval()
    padded = examples(model.config, [3, 12, 7], 1)
    with torch.no_grad():
        due, got = (model(**batch).loss_sums for batch in (padded, without_padding(padded, 4)))
    for name, loss_sum in due.items():
        assert_close(got[name], loss_sum)


def test_the_places_of_sequences(tiny: Config) -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    sequences = sequence_rows(mask, 11)
    assert sequences.starts.tolist() == [0, 3, 4, 8, 11] and sequences.batch == 3
    assert sequences.positions[:8].tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    rows = torch.arange(11.0)[:, None]
    padded = sequences.padded(rows).view(3, 4)
    assert padded[mask.bool()].tolist() == list(range(8))
    assert sequences.unpadded(padded.view(12, 1))[:8].equal(rows[:8])
    assert sequences.first(rows).flatten().tolist() == [0, 3, 4]


def test_a_forward_reads_no_number_from_the_device(tiny: Config) -> None:
    model = SqueezeBertForPreTraining(tiny())
    batch = without_padding(examples(model.config, [5, 9], 0), 2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        model(**batch)
    names = {event.name for event in profiler.events()}
    assert "aten::searchsorted" in names
    # Each of these waits for the device.
    assert not names & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"}


def test_torch_compile_takes_the_whole_forward(tiny: Config) -> None:
    model = SqueezeBertForPreTraining(tiny(num_hidden_layers=1))
    batch = without_padding(examples(model.config, [5, 9], 0), 2)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    assert_close(compiled(**batch).loss_sums["mlm"], model(**batch).loss_sums["mlm"])


def test_by_kernels_it_is_the_same_model(tiny: Config, scramble: Scramble) -> None:
    pytest.importorskip("triton", reason="Triton is for Linux alone")
    config = tiny(num_hidden_layers=1, hidden_size=64)
    model = scramble(SqueezeBertModel(config))
    batch = examples(config, [4, 9, 2], 0)
    inputs = without_padding(batch, 5)
    names = ("input_ids", "attention_mask", "token_type_ids")
    mask = batch["attention_mask"].bool()
    direction = torch.randn(int(mask.sum()), 64)
    # The bias of keys changes all scores of a query alike, and so nothing.
    parameters = [p for name, p in model.named_parameters() if not name.endswith("key.bias")]

    def run(arguments: list[Tensor], tokens: Callable[[Tensor], Tensor]) -> list[Tensor]:
        hidden, pooled = model(*arguments)
        total = (tokens(hidden) * direction).sum() + pooled.sum()
        return [tokens(hidden), pooled, *torch.autograd.grad(total, parameters)]

    due = run([batch[name] for name in names], lambda hidden: hidden[mask])
    use_kernels(model)
    got = run([inputs[name] for name in names], lambda hidden: hidden[: len(direction)])
    for ours, theirs in zip(got, due, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()
