"""The attention kernel, in Triton's interpreter, is plain attention."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from examples import scaled

pytest.importorskip("triton", reason="Triton is for Linux alone")
from sqzb.model.encoder import additive_mask
from sqzb.model.kernels import attention as module
from sqzb.model.kernels.attention import packed_attention
from sqzb.model.unpadding import sequence_rows

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
# The interpreter takes half a second for an example.
few = settings(max_examples=scaled(4), deadline=None)


@contextmanager
def small_tiles() -> Iterator[None]:
    """So small that few rows take several, and steps of another number than blocks."""
    launch = {"num_warps": 4, "num_stages": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_forward_sizes", lambda *_: {"M_TILE": 16, "N_TILE": 32, **launch})
        patch.setattr(module, "_backward_sizes", lambda *_: {"M_TILE": 16, "N_TILE": 32, **launch})
        yield


def packed(
    batch: int, length: int, heads: int, width: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    return (1.5 * torch.randn(batch * length, 3 * heads * width)).to(dtype).requires_grad_()


def by_head(qkv: Tensor, batch: int, heads: int, groups: int) -> tuple[Tensor, ...]:
    """Queries, keys and values, (batch, heads, length, width of a head)."""
    parts = qkv.view(batch, len(qkv) // batch, groups, 3, heads // groups, -1)
    return tuple(parts.permute(3, 0, 2, 4, 1, 5).flatten(2, 3))


def packed_from(parts: tuple[Tensor, ...], groups: int) -> Tensor:
    query, heads = parts[0], parts[0].shape[1]
    by_group = torch.stack(parts, 1).unflatten(
        2, (groups, heads // groups)
    )  # batch, part, group, head, length, width
    packed: Tensor = by_group.permute(0, 4, 2, 1, 3, 5).reshape(len(query) * query.shape[2], -1)
    return packed


def kept(qkv: Tensor, batch: int, heads: int, groups: int, dropout: float, seed: Tensor) -> Tensor:
    """What dropout leaves of the probabilities (batch, heads, length, length): read off values that
    tell keys apart.
    """
    query, key, value = by_head(qkv.detach(), batch, heads, groups)
    length, width = value.shape[2:]
    found = []
    for start in range(0, length, width):
        one_hot = torch.eye(length)[:, start : start + width].expand(batch, heads, length, -1)
        value = F.pad(one_hot, (0, width - one_hot.shape[-1]))
        # Equal scores: no probability is too small to be seen.
        probe = packed_from(
            (torch.zeros_like(query).float(), torch.zeros_like(key).float(), value), groups
        )
        context = packed_attention(
            probe, torch.zeros(probe.shape[1]), None, batch, heads, groups, dropout, seed
        )
        found.append(
            context.view(batch, length, heads, width).transpose(1, 2)[..., : one_hot.shape[-1]]
        )
    return torch.cat(found, -1) > 0


def with_gradient(context: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor]:
    direction = (
        torch.randn(context.shape, generator=torch.Generator().manual_seed(1))
        .bfloat16()
        .to(context)
    )
    (gradient,) = torch.autograd.grad(context, qkv, direction)
    return context.detach(), gradient


def plain(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    batch: int,
    heads: int,
    groups: int,
    factor: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """In float64, with probabilities multiplied by `factor`."""
    qkv = qkv.detach().double().requires_grad_()
    query, key, value = by_head(qkv + bias.double(), batch, heads, groups)
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask[:, None, None, :]
    context = (scores.softmax(-1) * factor) @ value
    return with_gradient(context.transpose(1, 2).reshape(len(qkv), -1), qkv)


def close(got: tuple[Tensor, ...], due: tuple[Tensor, ...], tolerance: float) -> None:
    """Each pair differs by no more than the tolerance times the largest number in it."""
    for ours, theirs in zip(got, due, strict=True):
        assert_close(
            ours.double(),
            theirs.double(),
            rtol=tolerance,
            atol=tolerance * theirs.abs().max().item(),
        )


def random_mask(batch: int, length: int) -> Tensor:
    """The second sequence is padding throughout, the others have some."""
    seen = torch.rand(batch, length) < 0.7
    seen[1:2] = False
    return additive_mask(seen.long())[:, 0, 0]


def check(
    sizes: tuple[int, int, int, int], width: int, dtype: torch.dtype, masked: bool, dropout: float,
    number: int, tiles: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:  # fmt: skip
    batch, length, groups, heads = sizes
    heads *= groups
    qkv, seed = packed(batch, length, heads, width, dtype), torch.tensor(number)
    bias = torch.randn(qkv.shape[1])
    mask = random_mask(batch, length) if masked else None
    rest = batch, heads, groups
    factor = kept(qkv, *rest, dropout, seed).double() / (1 - dropout) if dropout else 1.0
    with tiles():
        got = with_gradient(packed_attention(qkv, bias, mask, *rest, dropout, seed), qkv)
    assert [tensor.dtype for tensor in got] == [dtype, dtype]
    close(got, plain(qkv, bias, mask, *rest, factor), TOLERANCE[dtype])


# Sequences, their length, groups and heads of each; width of a head; type; whether some keys are
# masked; dropout; seed.
CASES = (
    st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([16, 32]),
    st.sampled_from(list(TOLERANCE)),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(-(2**63), 2**63 - 1),
)
Case = tuple[tuple[int, int, int, int], int, torch.dtype, bool, float, int]


@few
@given(st.tuples(*CASES))
def test_it_is_plain_attention_with_the_same_probabilities_dropped(case: Case) -> None:
    check(*case)


@few
@given(st.tuples(*CASES))
def test_of_several_tiles_it_is_so_too_and_drops_the_same(case: Case) -> None:
    check(*case, tiles=small_tiles)


@pytest.mark.parametrize(
    ("length", "width", "dtype", "dropout"),
    [
        pytest.param(128, 64, torch.bfloat16, 0.1, id="the length of most of a pretraining"),
        pytest.param(140, 64, torch.bfloat16, 0.1, id="longer than a tile"),
        pytest.param(33, 128, torch.float32, 0.0, id="the widest head"),
    ],
)
def test_the_tiles_of_a_gpu_cover_every_row(
    length: int, width: int, dtype: torch.dtype, dropout: float
) -> None:
    torch.manual_seed(0)
    check((1, length, 1, 1), width, dtype, length != 33, dropout, 5)


@settings(max_examples=scaled(5), deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=2),
    filling=st.integers(0, 50),
    dtype=st.sampled_from(list(TOLERANCE)),
    dropout=st.sampled_from([0.0, 0.3]),
    tiles=st.sampled_from([nullcontext, small_tiles]),
)
def test_rows_without_padding_are_the_same_sequences(
    lengths: list[int],
    filling: int,
    dtype: torch.dtype,
    dropout: float,
    tiles: Callable[[], AbstractContextManager[None]],
) -> None:
    """With the same dropout too. Rows of no sequence have no context and no gradient."""
    longest, heads, groups, seed = max(lengths), 2, 2, torch.tensor(7)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    tokens = sum(lengths)
    sequences = sequence_rows(mask, tokens + filling)
    rows = packed(1, tokens + filling, heads, 16, dtype)
    bias = torch.randn(rows.shape[1])
    padded = sequences.padded(rows.detach()).requires_grad_()
    rest = len(lengths), heads, groups, dropout, seed
    with tiles():
        context = packed_attention(rows, bias, None, *rest, sequences)
        due = packed_attention(padded, bias, additive_mask(mask)[:, 0, 0], *rest)
    assert not context[tokens:].any()
    close((context[:tokens],), (due[mask.flatten().bool()],), TOLERANCE[dtype])

    direction = torch.randn(tokens, context.shape[1]).to(dtype)
    of_padding = torch.zeros_like(due).masked_scatter(mask.flatten().bool()[:, None], direction)
    of_rows = torch.cat([direction, torch.ones(filling, context.shape[1], dtype=dtype)])
    with tiles():
        (gradient,) = torch.autograd.grad(context, rows, of_rows)
        (gradient_due,) = torch.autograd.grad(due, padded, of_padding)
    assert not gradient[tokens:].any()
    close((gradient[:tokens],), (gradient_due[mask.flatten().bool()],), TOLERANCE[dtype])


def test_of_a_sequence_that_is_all_padding_every_key_weighs_the_same() -> None:
    qkv, bias = packed(2, 20, 2, 16), torch.randn(96)
    mask = additive_mask(torch.zeros(2, 20))[:, 0, 0]
    for tiles in (nullcontext, small_tiles):
        with tiles():
            context, gradient = with_gradient(
                packed_attention(qkv, bias, mask, 2, 2, 1, 0.0, torch.tensor(0)), qkv
            )
        value = by_head(qkv.detach() + bias, 2, 2, 1)[2]
        due = value.mean(2, keepdim=True).expand(value.shape).transpose(1, 2).reshape(context.shape)
        close((context,), (due,), 1e-5)
        assert gradient.isfinite().all()


def test_heads_sequences_and_places_are_dropped_independently_and_again_alike() -> None:
    qkv, dropout = packed(2, 48, 4, 64), 0.3
    mask, again, other = (kept(qkv, 2, 4, 2, dropout, torch.tensor(n)) for n in (7, 7, 8))
    assert mask.equal(again)
    bound = (
        6 * (0.25 / mask[1:].numel()) ** 0.5
    )  # of six standard deviations, at the variance's largest
    assert mask.double().mean().item() == pytest.approx(1 - dropout, abs=bound)
    neighbours = (
        (mask.narrow(n, 1, mask.shape[n] - 1), mask.narrow(n, 0, mask.shape[n] - 1))
        for n in range(4)
    )
    for one, two in [(mask, other), *neighbours]:
        agree = (one == two).double().mean().item()
        assert agree == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=1.5 * bound)


def test_inputs_and_gradients_may_lie_in_memory_in_any_order() -> None:
    qkv, bias = torch.randn(96, 14).t().requires_grad_(), torch.randn(96)
    context = packed_attention(qkv, bias, None, 2, 2, 1, 0.0, torch.tensor(0))
    close(with_gradient(context, qkv), plain(qkv, bias, None, 2, 2, 1, 1.0), 1e-5)
    context = packed_attention(qkv, bias, None, 2, 2, 1, 0.0, torch.tensor(0))
    one, all_ones = torch.ones(1).expand(context.shape), torch.ones_like(context)
    by_one, by_all = (
        torch.autograd.grad(context, qkv, ones, retain_graph=True) for ones in (one, all_ones)
    )
    close(by_one, by_all, 1e-6)


@pytest.mark.parametrize(
    ("shape", "batch", "heads", "groups", "message"),
    [
        ((4, 144), 2, 2, 1, "a head is 24 wide, and must be 16, 32, 64 or 128"),
        ((4, 768), 2, 1, 1, "a head is 256 wide"),
        ((5, 96), 2, 2, 1, "5 rows are not of 2 sequences"),
        ((4, 144), 2, 3, 2, "3 heads are not of 2 groups"),
    ],
)
def test_sizes_that_the_kernels_lack_are_refused(
    shape: tuple[int, int], batch: int, heads: int, groups: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        packed_attention(
            torch.randn(shape),
            torch.zeros(shape[1]),
            None,
            batch,
            heads,
            groups,
            0.0,
            torch.tensor(0),
        )


def test_torch_compile_takes_it_whole_and_forward_and_backward() -> None:
    qkv, mask, seed = packed(2, 5, 2, 16, torch.bfloat16), random_mask(2, 5), torch.tensor(7)
    bias = torch.randn(96, requires_grad=True)

    def twice(x: Tensor) -> Tensor:
        return 2 * packed_attention(x, bias, mask, 2, 2, 1, 0.1, seed)

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    close(with_gradient(compiled(qkv), qkv), with_gradient(twice(qkv), qkv), 1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_keeps_the_rules_of_torch(masked: bool) -> None:
    mask = random_mask(2, 3) if masked else None
    inputs = packed(2, 3, 2, 16), torch.randn(96), mask, 2, 2, 1, 0.5, torch.tensor(1)
    torch.library.opcheck(torch.ops.sqzb.packed_attention.default, inputs)


def test_the_operator_keeps_the_rules_of_torch_without_padding_too() -> None:
    sequences = sequence_rows(torch.tensor([[1, 1, 1], [1, 0, 0]]), 6)
    inputs = packed(2, 3, 2, 16), torch.randn(96), None, 2, 2, 1, 0.5, torch.tensor(1)
    arguments = (*inputs, sequences.starts, sequences.length)
    torch.library.opcheck(torch.ops.sqzb.packed_attention.default, arguments)
