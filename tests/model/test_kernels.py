"""The kernels, in Triton's interpreter, are the plain layers; and they compile for a GPU, which none of this needs."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.layers import GroupedLinear, ProjectAddNorm, activation, use_kernels

pytest.importorskip("triton", reason="Triton is for Linux alone")
from sqzb.model import kernels
from sqzb.model.kernels import dropout_add_norm, grouped_ffn

ACTIVATIONS = ("gelu", "gelu_new", "relu")
EPS = 1e-12
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def close(got: tuple[Tensor, ...], due: tuple[Tensor, ...], tolerance: float) -> None:
    """Each pair differs by no more than the tolerance times the largest number in it."""
    for ours, theirs in zip(got, due, strict=True):
        assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def with_gradients(y: Tensor, wrt: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y)
    return y.detach(), *torch.autograd.grad(y, wrt, direction)


def ffn_layers(groups: int, before: int, middle: int, after: int) -> tuple[GroupedLinear, GroupedLinear]:
    layers = (
        GroupedLinear(groups * before, groups * middle, groups),
        GroupedLinear(groups * middle, groups * after, groups),
    )
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)
        nn.init.normal_(layer.bias)
    return layers


def fused_ffn(first: GroupedLinear, second: GroupedLinear, x: Tensor, name: str) -> tuple[Tensor, ...]:
    parameters = first.weight, first.bias, second.weight, second.bias
    return with_gradients(grouped_ffn(x, *parameters, first.groups, name), (x, *parameters))


def plain_ffn(first: GroupedLinear, second: GroupedLinear, x: Tensor, name: str) -> tuple[Tensor, ...]:
    """In float64, with weights that are first rounded to the type of x, as the kernels round them."""
    first, second = copy.deepcopy(first), copy.deepcopy(second)
    for layer in (first, second):
        layer.weight.data = layer.weight.data.to(x.dtype)
        layer.double()
    x = x.detach().double().requires_grad_()
    act = activation(SqueezeBertConfig(hidden_act=name))
    y = second(act(first(x.flatten(0, 1)))).view(*x.shape[:2], -1)
    return with_gradients(y, (x, first.weight, first.bias, second.weight, second.bias))


# Groups, widths of a group before, in the middle and after, batch, length.
@settings(max_examples=8, deadline=None)
@given(st.tuples(*(st.integers(1, top) for top in (3, 40, 70, 40, 3, 5))), st.sampled_from(ACTIVATIONS))
def test_the_fused_feed_forward_block_is_the_plain_one(sizes: tuple[int, ...], name: str) -> None:
    groups, before, middle, after, batch, length = sizes
    layers = ffn_layers(groups, before, middle, after)
    x = torch.randn(batch, length, groups * before, requires_grad=True)
    close(fused_ffn(*layers, x, name), plain_ffn(*layers, x, name), 1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_of_bf16_inputs_the_gradients_of_the_weights_stay_fp32(name: str) -> None:
    layers = ffn_layers(2, 24, 70, 40)
    x = torch.randn(2, 5, 48).bfloat16().requires_grad_()
    got = fused_ffn(*layers, x, name)
    assert [tensor.dtype for tensor in got] == [torch.bfloat16] * 2 + [torch.float32] * 4
    close(got, plain_ffn(*layers, x, name), 2e-2)


@pytest.mark.parametrize(
    ("groups", "before", "middle", "after", "rows", "dtype"),
    [
        pytest.param(4, 192, 768, 192, 3, torch.bfloat16, id="the published widths"),
        pytest.param(1, 256, 64, 16, 5, torch.float32, id="the widest group"),
        pytest.param(2, 48, 100, 17, 150, torch.float32, id="several tiles of rows in a part"),
    ],
)
def test_tiles_cover_every_row_and_width(
    groups: int, before: int, middle: int, after: int, rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "WEIGHT_PARTS", 2)
    layers = ffn_layers(groups, before, middle, after)
    x = torch.randn(1, rows, groups * before).to(dtype).requires_grad_()
    close(fused_ffn(*layers, x, "gelu"), plain_ffn(*layers, x, "gelu"), TOLERANCE[dtype])


def grouped_gradient(layers: tuple[GroupedLinear, GroupedLinear], x: Tensor, expand: bool) -> Tensor:
    """Of the sum of all outputs, whose gradient is one number seen at every place if `expand`."""
    first, second = layers
    y = grouped_ffn(x, first.weight, first.bias, second.weight, second.bias, first.groups, "gelu")
    (gradient,) = torch.autograd.grad(y, x, torch.ones(1).expand(y.shape) if expand else torch.ones_like(y))
    return gradient


def test_inputs_and_gradients_may_lie_in_memory_in_any_order() -> None:
    layers = ffn_layers(2, 8, 16, 8)
    x = torch.randn(16, 5, 3).permute(2, 1, 0).requires_grad_()
    close(fused_ffn(*layers, x, "gelu"), plain_ffn(*layers, x, "gelu"), 1e-5)
    close((grouped_gradient(layers, x, expand=True),), (grouped_gradient(layers, x, expand=False),), 1e-6)


def test_a_group_that_does_not_fit_is_refused() -> None:
    first, second = ffn_layers(1, 257, 16, 16)
    with pytest.raises(ValueError, match="257 wide before and 16 after; at most 256"):
        fused_ffn(first, second, torch.randn(1, 2, 257), "gelu")


def test_autocast_sets_the_type_of_the_activations_alone() -> None:
    layers = ffn_layers(2, 16, 32, 16)
    x = torch.randn(2, 3, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = fused_ffn(*layers, x, "gelu")
    assert [tensor.dtype for tensor in got] == [torch.bfloat16] + [torch.float32] * 5
    close(got, plain_ffn(*layers, x.bfloat16(), "gelu"), 2e-2)


def norm_inputs(rows: int, width: int, x_type: torch.dtype, residual_type: torch.dtype) -> tuple[Tensor, ...]:
    shapes = (rows, width), (rows, width), (width,), (width,)
    types = x_type, residual_type, torch.float32, torch.float32
    return tuple(
        (3 * torch.randn(shape)).to(dtype).requires_grad_() for shape, dtype in zip(shapes, types, strict=True)
    )


def kept(rows: int, width: int, dropout: float, seed: Tensor) -> Tensor:
    """What dropout leaves: of equal numbers, those above the mean of their row."""
    ones, zeros = torch.ones(rows, width), torch.zeros(rows, width)
    return dropout_add_norm(ones, zeros, ones[0], zeros[0], dropout, EPS, seed) > 0


def plain_norm(inputs: tuple[Tensor, ...], factor: Tensor | float) -> tuple[Tensor, ...]:
    x, residual, weight, bias = copies = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    return with_gradients(F.layer_norm(x * factor + residual, weight.shape, weight, bias, EPS), copies)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(20, 150),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 2**63 - 1),
)
def test_fused_dropout_and_norm_are_the_plain_ones_with_the_same_places_dropped(
    rows: int, width: int, x_type: torch.dtype, residual_type: torch.dtype, dropout: float, number: int
) -> None:
    inputs, seed = norm_inputs(rows, width, x_type, residual_type), torch.tensor(number)
    mask = kept(rows, width, dropout, seed) if dropout else torch.ones(rows, width)
    # A row that is dropped whole or kept whole cannot be told from its output.
    assume(not dropout or mask.any(1).all())
    got = with_gradients(dropout_add_norm(*inputs, dropout, EPS, seed), inputs)
    assert [tensor.dtype for tensor in got] == [(inputs[0] + inputs[1]).dtype, *(tensor.dtype for tensor in inputs)]
    close(got, plain_norm(inputs, mask / (1 - dropout)), max(TOLERANCE[x_type], TOLERANCE[residual_type]))


def test_without_dropout_it_is_what_follows_the_linear_layer() -> None:
    layer = ProjectAddNorm(96, 96, 2, dropout=0.0).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x, residual, norm = torch.randn(10, 96), torch.randn(10, 96), layer.layernorm
    projected = layer.conv1d(x.double())
    weight, bias = norm.weight.float(), norm.bias.float()
    got = dropout_add_norm(projected.float(), residual, weight, bias, 0.0, EPS, torch.tensor(0))
    close((got,), (layer(projected, residual.double()),), 1e-5)


def test_a_whole_model_is_the_same_with_kernels() -> None:
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    model = SqueezeBertModel(config)
    ids, direction = torch.randint(5, 40, (2, 9)), torch.randn(2, 9, 32)
    # The key's bias changes all scores of a query alike, and so nothing.
    parameters = [p for name, p in model.encoder.named_parameters() if not name.endswith("key.bias")]
    found = []
    for _ in ("plain", "with kernels"):
        hidden = model(ids).last_hidden_state
        found.append((hidden, *torch.autograd.grad((hidden * direction).sum(), parameters)))
        use_kernels(model)
    close(*found[::-1], 1e-4)


def test_kernels_are_refused_where_groups_do_not_go_with_them() -> None:
    model = SqueezeBertModel(SqueezeBertConfig(num_hidden_layers=1, vocab_size=40, output_groups=2))
    with pytest.raises(ValueError, match="as many groups"):
        use_kernels(model)


def test_a_program_may_have_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, seed = norm_inputs(11, 40, torch.float32, torch.float32), torch.tensor(3)
    monkeypatch.setattr(kernels, "NORM_PARTS", 3)
    got = with_gradients(dropout_add_norm(*inputs, 0.2, EPS, seed), inputs)
    close(got, plain_norm(inputs, kept(11, 40, 0.2, seed) / 0.8), 1e-5)


@pytest.mark.parametrize(("number", "dropout"), [(0, 0.1), (2**32 + 1, 0.3), (-(2**63), 0.5)])
def test_places_are_dropped_at_the_rate_asked_for_and_independently(number: int, dropout: float) -> None:
    rows, width = 8, 500
    mask, again, other = (kept(rows, width, dropout, torch.tensor(n)) for n in (number, number, number + 1))
    assert mask.equal(again)
    bound = 6 * (0.25 / (rows * width)) ** 0.5  # of six standard deviations, at the variance's largest
    assert mask.double().mean().item() == pytest.approx(1 - dropout, abs=bound)
    # Draws that belong together in no way agree as often as two coins: by seed, row, place, and lane of a draw.
    for one, two in [(mask, other), (mask[1:], mask[:-1]), *((mask[:, n:], mask[:, :-n]) for n in (1, 2, 3, 4))]:
        agree = (one == two).double().mean().item()
        assert agree == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=1.2 * bound)
    stretches = torch.cat((mask, other)).unfold(1, 200, 1).flatten(0, 1)
    assert len(stretches.unique(dim=0)) == len(stretches), "a stretch of draws came twice"


def test_torch_compile_takes_both_whole_and_forward_and_backward() -> None:
    first, second = ffn_layers(2, 24, 40, 24)
    weight, bias, seed = torch.randn(48), torch.randn(48), torch.tensor(7)
    wrt = first.weight, first.bias, second.weight, second.bias, weight.requires_grad_(), bias.requires_grad_()

    def block(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = grouped_ffn(x, *wrt[:4], 2, "gelu")
            return dropout_add_norm(y, x, weight, bias, 0.1, EPS, seed)

    x = torch.randn(2, 5, 48, requires_grad=True)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    close(with_gradients(compiled(x), (x, *wrt)), with_gradients(block(x), (x, *wrt)), 1e-6)


def test_the_operators_keep_the_rules_of_torch() -> None:
    first, second = ffn_layers(2, 8, 16, 8)
    x = torch.randn(3, 16, requires_grad=True)
    parameters = first.weight, first.bias, second.weight, second.bias
    torch.library.opcheck(torch.ops.sqzb.grouped_ffn.default, (x, *parameters, 2, "relu"))
    inputs = norm_inputs(3, 20, torch.bfloat16, torch.float32)
    torch.library.opcheck(torch.ops.sqzb.dropout_add_norm.default, (*inputs, 0.5, EPS, torch.tensor(1)))


# Every kernel at the sizes that its launcher picks, compiled to machine code of an H100: NAME, shared memory in bytes.
COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sqzb.model import kernels

FP32 = {"b1", "b2", "dw1", "db1", "dw2", "residual", "weight", "bias", "dweight", "dbias"}
SCALARS = {"rows": "i32", "dropout": "fp32", "eps": "fp32", "seed": "*i64"}

def compile(kernel, constants, **options):
    names = [parameter.name for parameter in kernel.params]
    types = {name: SCALARS.get(name) or ("*fp32" if name in FP32 else "*bf16") for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if types[name][0] == "*"}
    source = ASTSource(kernel, types, values, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.fn.__name__, compiled.metadata.shared)

for width, activation in [(192, "gelu"), (256, "gelu_new")]:
    x = torch.empty(1, 4 * width, dtype=torch.bfloat16)
    sizes = kernels._sizes(x, torch.empty(16 * width, width, 1), torch.empty(4 * width, 4 * width, 1), 4, activation)
    for kernel in (kernels._ffn_kernel, kernels._ffn_input_gradient_kernel):
        compile(kernel, sizes, num_warps=kernels.WARPS, num_stages=2)
    sizes["R_TILE"] = sizes["M_TILE"]
    compile(kernels._ffn_weight_gradient_kernel, sizes, num_warps=kernels.WARPS, num_stages=2)
for kernel in (kernels._norm_kernel, kernels._norm_gradient_kernel):
    compile(kernel, kernels._row_sizes(768, 0.1))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a matter of the compiler that Triton ships")
def test_kernels_compile_for_an_h100_and_fit_its_shared_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == 8
    assert all(int(shared) <= 227 * 1024 for _, shared in lines), run.stdout
