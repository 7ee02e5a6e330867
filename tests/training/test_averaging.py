"""The mean of weights against a mean in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sqzb.training.averaging import WeightAverage


def walk(model: nn.Module, average: WeightAverage, steps: range, seed: int) -> list[list[Tensor]]:
    """Change the weights at random after each step; return them after each step in float64."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps.start):
        for parameter in model.parameters():
            torch.randn(parameter.shape, generator=generator)
    weights = []
    for step in steps:
        for parameter in model.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator)
        average.after_step(step + 1)
        weights.append([parameter.detach().double() for parameter in model.parameters()])
    return weights


@given(
    steps=st.integers(1, 60),
    share=st.floats(0.01, 1),
    every=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_mean_of_the_last_part(steps: int, share: float, every: int, seed: int) -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, steps, share, every)
    weights = walk(model, average, range(steps), seed)
    last = max(1, round(share * steps))
    averaged = weights[::-1][:last][::every]
    assert average.count == len(averaged)
    for number, mean in enumerate(average.state().values()):
        expected = np.mean([tensors[number].numpy() for tensors in averaged], axis=0)
        np.testing.assert_allclose(mean.double().numpy(), expected, rtol=2e-6, atol=2e-6)


def test_the_model_has_the_mean_in_the_block_alone() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 10, 0.5, 1)
    own = [parameter.detach().clone() for parameter in model.parameters()]
    with average.in_use():  # nothing is averaged yet
        assert all(map(torch.equal, own, model.parameters()))
    assert not average.state()
    walk(model, average, range(10), 0)
    own = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(KeyError), average.in_use():
        assert all(map(torch.equal, average.state().values(), model.parameters()))
        assert not any(map(torch.equal, own, model.parameters()))
        raise KeyError
    assert all(map(torch.equal, own, model.parameters()))


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_restored_mean_goes_on_bit_by_bit(stop: int) -> None:
    torch.manual_seed(0)
    whole = nn.Linear(3, 2)
    first = nn.Linear(3, 2)
    first.load_state_dict(whole.state_dict())
    undisturbed = WeightAverage(whole, 10, 0.6, 2)
    walk(whole, undisturbed, range(10), 1)

    before = WeightAverage(first, 10, 0.6, 2)
    walk(first, before, range(stop), 1)
    kept = {name: mean.clone() for name, mean in before.state().items()}
    after = WeightAverage(first, 10, 0.6, 2)
    after.restore(stop, before.count, kept)
    walk(first, after, range(stop, 10), 1)
    assert after.count == undisturbed.count
    ours, theirs = after.state(), undisturbed.state()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def test_a_longer_run_forgets_the_end_of_the_shorter_one() -> None:
    model = nn.Linear(3, 2)
    short = WeightAverage(model, 10, 0.5, 1)
    walk(model, short, range(10), 0)
    longer = WeightAverage(model, 100, 0.5, 1)
    longer.restore(10, short.count, short.state())
    assert longer.count == 0 and not longer.state()
