"""LAMB against the update written out in float64."""

import numpy as np
import pytest
import torch
import torch_optimizer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqzb.training.lamb import Lamb

Array = NDArray[np.float64]
BETAS, EPS = (0.9, 0.999), 1e-6


def reference(
    w: Array, gradients: list[Array], rates: list[float], decay: float, adapt: bool
) -> Array:
    """You et al. 2020, algorithm 2, without correction of the moments, as Google's code runs it."""
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        u = m / (np.sqrt(v) + EPS) + decay * w
        norms = np.linalg.norm(w), np.linalg.norm(u)
        ratio = norms[0] / norms[1] if adapt and norms[0] > 0 and norms[1] > 0 else 1.0
        w = w - lr * ratio * u
    return w


def run(
    w: Array,
    gradients: list[Array],
    rates: list[float],
    decay: float,
    adapt: bool,
    together: bool | None = None,
) -> Array:
    """The same with Lamb, beside parameters of its own and of the other group, which must not
    disturb it.
    """
    parameter = torch.nn.Parameter(torch.tensor(w))
    beside, other = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    groups = [
        {"params": [beside, parameter], "weight_decay": decay, "adapt": adapt},
        {"params": [other], "weight_decay": 0.3, "adapt": not adapt},
    ]
    optimizer = Lamb(groups, 1.0, BETAS, EPS, together)
    for g, lr in zip(gradients, rates, strict=True):
        parameter.grad = torch.tensor(g)
        beside.grad, other.grad = (torch.ones(3, dtype=torch.float64) for _ in range(2))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("together", [False, True])
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.sampled_from([0.0, 1e-3, 0.02, 1.0, 97.0, 1e4]),
    st.sampled_from([0.0, 1e-8, 1.0, 1e3]),
    st.sampled_from([0.0, 0.01]),
    st.booleans(),
)
def test_lamb_is_the_published_update(
    together: bool, seed: int, steps: int, scale: float, gradient: float, decay: float, adapt: bool
) -> None:
    draw = np.random.default_rng(seed)
    w = scale * draw.standard_normal((3, 4))
    gradients = [gradient * draw.standard_normal((3, 4)) for _ in range(steps)]
    rates = draw.uniform(1e-4, 1e-2, steps).tolist()
    found = run(w, gradients, rates, decay, adapt, together)
    np.testing.assert_allclose(
        found, reference(w, gradients, rates, decay, adapt), rtol=1e-9, atol=1e-12
    )


def test_a_large_tensor_takes_its_whole_step() -> None:
    """The step's length is the rate times |w|, however large |w|: BERT's embeddings have a norm of
    97.
    """
    w = np.random.default_rng(0).standard_normal((200, 50))
    w *= 97 / np.linalg.norm(w)
    moved = run(w, [np.ones_like(w)], [0.01], 0.01, True) - w
    assert np.linalg.norm(moved) == pytest.approx(0.97, rel=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_many_tensors_of_several_shapes_each_take_their_own_step(together: bool) -> None:
    draw = np.random.default_rng(0)
    start = [
        draw.standard_normal(shape) * 3**n
        for n, shape in enumerate([(5, 4), (7,), (3, 2, 1), (1,)])
    ]
    gradients = [[draw.standard_normal(w.shape) for _ in range(3)] for w in start]
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    group = {"params": parameters, "weight_decay": 0.01}
    optimizer = Lamb([group], 0.02, BETAS, EPS, together)
    for of_step in zip(*gradients, strict=True):
        for parameter, gradient in zip(parameters, of_step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    for w, own, parameter in zip(start, gradients, parameters, strict=True):
        due = reference(w, own, [0.02] * 3, 0.01, True)
        np.testing.assert_allclose(parameter.detach().numpy(), due, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("together", [False, True])
def test_zero_weights_move_and_zero_gradients_do_not(together: bool) -> None:
    zero, ones = np.zeros((2, 2)), np.ones((2, 2))
    assert (run(zero, [ones], [0.1], 0.01, True, together) < 0).all()
    assert (run(ones, [zero], [0.1], 0.0, True, together) == ones).all()


@pytest.mark.parametrize("together", [False, True])
def test_a_parameter_without_a_gradient_is_left_alone(together: bool) -> None:
    used, unused = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = Lamb(
        [{"params": [used, unused], "weight_decay": 0.1, "adapt": True}], 0.1, BETAS, EPS, together
    )
    used.grad = torch.ones(2, 2)
    optimizer.step()
    assert (unused == 1).all() and not (used == 1).any()


def test_it_is_the_librarys_update_where_that_is_lamb() -> None:
    torch.manual_seed(0)
    start = [torch.randn(*shape, dtype=torch.float64) for shape in ((5, 4), (7,), (3, 2, 1))]
    ours, theirs = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    optimizers = [
        Lamb([{"params": ours, "weight_decay": 0.01}], 0.02, BETAS, EPS),
        torch_optimizer.Lamb(theirs, 0.02, BETAS, EPS, weight_decay=0.01, clamp_value=float("inf")),
    ]
    for _ in range(5):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_closure_gives_the_loss() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([{"params": [parameter]}], 0.1, BETAS, EPS)
    assert optimizer.step(lambda: 3.0) == 3.0


@pytest.mark.parametrize("together", [False, True])
def test_an_update_that_must_not_happen_changes_nothing(together: bool) -> None:
    torch.manual_seed(0)
    matrix, vector = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))
    groups = [{"params": [matrix], "weight_decay": 0.1}, {"params": [vector], "adapt": False}]
    optimizer = Lamb(groups, 0.1, BETAS, EPS, together)

    def step(is_bad: bool) -> list[torch.Tensor]:
        for parameter in (matrix, vector):
            parameter.grad = torch.zeros_like(parameter) if is_bad else torch.ones_like(parameter)
        optimizer.found_inf = torch.tensor(float(is_bad))
        optimizer.step()
        moments = [moment for p in (matrix, vector) for moment in optimizer.state[p].values()]
        return [tensor.detach().clone() for tensor in (matrix, vector, *moments)]

    before, after, later = step(False), step(True), step(False)
    assert all(map(torch.equal, before, after)) and not any(map(torch.equal, before, later))


def test_all_tensors_take_each_operation_together() -> None:
    """More tensors are no more operations, which on a GPU are launches; a ratio for each tensor is
    the exception.
    """

    def operations(n: int) -> int:
        parameters = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(n)]
        optimizer = Lamb(
            [{"params": parameters, "weight_decay": 0.1}], 0.1, BETAS, EPS, together=True
        )
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            optimizer.step()
        names = [event.name for event in profiler.events() if event.cpu_parent is None]
        assert "aten::item" not in names
        return len([name for name in names if name.startswith("aten::_foreach")])

    assert operations(2) == operations(20)
