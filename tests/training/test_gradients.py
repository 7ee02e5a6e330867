"""Gradients in one tensor are those of the parameters."""

import pytest
import torch
from torch import Tensor, nn

from sqzb.training.gradients import FlatGradients


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    found = [nn.Parameter(torch.randn(*shape)) for shape in ((3, 5), (7,), (2, 2, 1), (4,))]
    for parameter in found[:3]:
        parameter.grad = torch.randn_like(parameter)
    return found


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("most", [0.5, 1e3], ids=["clipped", "not clipped"])
def test_they_are_clipped_as_torch_does_it(most: float) -> None:
    flat, separate = parameters(), parameters()
    norm = FlatGradients(flat).clip(most)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(separate, most))
    for one, other in zip(flat[:3], separate[:3], strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert flat[3].grad is None


def test_a_backward_pass_adds_to_the_same_memory() -> None:
    found = parameters()
    gradients = FlatGradients(found)
    places = [parameter.grad.data_ptr() for parameter in found[:3] if parameter.grad is not None]
    gradients.zero()
    torch.stack(
        [parameter.sum() * (number + 1) for number, parameter in enumerate(found[:3])]
    ).sum().backward()
    assert [
        parameter.grad.data_ptr() for parameter in found[:3] if parameter.grad is not None
    ] == places
    for number, parameter in enumerate(found[:3]):
        assert torch.equal(gradient_of(parameter), torch.full_like(parameter, number + 1))
    assert gradients.clip(1e9) == pytest.approx((15 * 1 + 7 * 4 + 4 * 9) ** 0.5)


def test_zero_takes_what_is_not_finite_too() -> None:
    found = parameters()
    gradients = FlatGradients(found)
    assert found[0].grad is not None
    found[0].grad[0, 0] = float("nan")
    gradients.clip(1.0)
    gradients.zero_where(torch.tensor(False))
    assert found[1].grad is not None and found[1].grad.isnan().all()
    gradients.zero_where(torch.tensor(True))
    assert not any(gradient_of(parameter).any() for parameter in found[:3])


def test_a_gradient_that_comes_late_is_an_error() -> None:
    found = parameters()
    gradients = FlatGradients(found)
    found[3].grad = torch.ones(4)
    with pytest.raises(AssertionError, match="late"):
        gradients.clip(1.0)
