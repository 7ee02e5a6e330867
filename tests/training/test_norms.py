"""Norms against float64, for tensors of any shape and size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sqzb.training.lamb import Lamb
from sqzb.training.norms import clip, norms

RIGHT = 3e-7  # a few units in the last place of fp32

# BERT's embeddings, a convolution and vectors, and shapes that no model has.
SHAPES = [
    *((30_522, 768), (3072, 192, 1), (768,), (30_522,), (2, 768)),
    *((2, 500_000), (500_000, 2), (1_000_000,), (1, 1), (1,), (0,), (3, 0), (7, 11, 13)),
]


def exact(tensor: Tensor) -> float:
    return float(np.linalg.norm(tensor.numpy().astype(np.float64).ravel()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_are_right_for_any_number_of_elements(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(shape) * 0.02
    [found] = norms([tensor])
    assert found.dtype == tensor.dtype
    assert float(found) == pytest.approx(exact(tensor), rel=RIGHT)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    st.sampled_from([1e-9, 0.5, 1e3]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_gradients_are_clipped_as_torch_does_it(
    shapes: list[list[int]], scale: float, most: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    ours = [scale * torch.randn(shape, dtype=dtype) for shape in shapes]
    theirs = [nn.Parameter(torch.zeros_like(gradient)) for gradient in ours]
    for parameter, gradient in zip(theirs, ours, strict=True):
        parameter.grad = gradient.clone()
    due = nn.utils.clip_grad_norm_(theirs, most)
    torch.testing.assert_close(clip(ours, most), due)
    for parameter, gradient in zip(theirs, ours, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("together", [False, True])
def test_lamb_moves_the_embeddings_by_their_whole_norm(together: bool) -> None:
    """The length of a step of LAMB is the rate times |w|."""
    torch.manual_seed(0)
    weights = nn.Parameter(torch.randn(30_522, 128) * 0.02)
    weights.grad = torch.randn_like(weights)
    before = weights.detach().clone()
    Lamb([{"params": [weights]}], 1.0, (0.9, 0.999), 1e-6, together).step()
    moved = exact(weights.detach() - before)
    assert moved == pytest.approx(exact(before), rel=1e-6)
