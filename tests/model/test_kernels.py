"""A whole model by the kernels, in Triton's interpreter, is the plain one; and the kernels compile
for a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.encoder import SqueezeBertModel
from sqzb.model.kernels.choice import SHARED_MEMORY
from sqzb.model.layers import use_kernels

pytest.importorskip("triton", reason="Triton is for Linux alone")


@pytest.mark.parametrize(
    ("precision", "tolerance", "post_groups", "layers"),
    [
        (torch.float32, 1e-4, 1, 1),
        (torch.float32, 1e-4, 2, 2),
        (torch.bfloat16, 3e-2, 1, 1),
        (torch.bfloat16, 3e-2, 2, 1),
    ],
)
def test_a_whole_model_is_the_same_with_kernels(
    precision: torch.dtype, tolerance: float, post_groups: int, layers: int
) -> None:
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=40, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=128, post_attention_groups=post_groups,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    model = SqueezeBertModel(config)
    for name, parameter in model.named_parameters():
        std = 0.05 if name.endswith("bias") else 0.2
        torch.nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=std)
    ids, direction = torch.randint(5, 40, (2, 9)), torch.randn(2, 9, 64)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    # The key's bias changes all scores of a query alike, and so nothing.
    parameters = [
        p for name, p in model.encoder.named_parameters() if not name.endswith("key.bias")
    ]
    found = []
    for kind in (torch.float32, precision):
        with torch.autocast("cpu", kind, enabled=kind is torch.bfloat16):
            hidden = model(ids, mask).last_hidden_state
        assert hidden.dtype is kind
        found.append((hidden, *torch.autograd.grad((hidden.float() * direction).sum(), parameters)))
        use_kernels(model)
    for plain, by_kernels in zip(*found, strict=True):
        assert (by_kernels - plain).norm() <= tolerance * plain.norm()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"output_groups": 2}, "as many groups in `intermediate` as in `output`"),
        ({"k_groups": 2}, "as many groups in `q`, `k` and `v`"),
        (
            {"num_attention_heads": 6, "q_groups": 4, "k_groups": 4, "v_groups": 4},
            "which divide the heads",
        ),
        ({"num_attention_heads": 32}, "and these have 24"),
    ],
)
def test_kernels_are_refused_where_the_model_does_not_go_with_them(
    shape: dict[str, Any], message: str
) -> None:
    model = SqueezeBertModel(SqueezeBertConfig(num_hidden_layers=1, vocab_size=40, **shape))
    with pytest.raises(ValueError, match=message):
        use_kernels(model)


# Every kernel at the published sizes, as it is launched, compiled to machine code of an H100: NAME,
# shared memory in bytes.
COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sqzb.model.kernels import attention, linear, norm

OTHERS = {"rows": "i32", "length": "i32", "seed": "*i64", "starts": "*i64"}
OTHERS |= dict.fromkeys(("dropout", "eps", "scale"), "fp32")
FP32 = {"bias", "offset", "weight", "mask", "statistics", "sums", "dweight", "dbias"}

def compile(kernel, constants):
    options = {name: constants.pop(name) for name in list(constants) if name.islower()}
    names = [parameter.name for parameter in kernel.params]
    types = {name: OTHERS.get(name) or ("*fp32" if name in FP32 else "*bf16") for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    pointers = [name for name in names if types[name][0] == "*"]
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(kernel, types, values, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.fn.__name__, compiled.metadata.shared)

bf16 = torch.bfloat16
for length in (128, 512):
    packed = torch.empty(length, 3 * 768, dtype=bf16)
    padded = attention._constants(packed, packed, 12, 4, 0.1)
    unpadded = attention._constants(packed, None, 12, 4, 0.1, starts=packed)
    for shared in (padded, unpadded):
        compile(attention._forward_kernel, shared | attention._forward_sizes(length, bf16))
        sizes = attention._backward_sizes(length, bf16)
        compile(attention._backward_kernel, shared | {"ONE": sizes["N_TILE"] >= length} | sizes)
for slope in (False, True):
    constants = {"N": 3072, "ACTIVATION": "gelu", "SLOPE": slope, **linear.ACTIVATION_TILE}
    compile(linear._activation_kernel, constants)
for before, after in ((192, 576), (192, 768), (768, 192)):
    tiles = linear.weight_tiles(before, after, 2)
    constants = linear._weight_constants(before, after, 4, tiles)
    constants |= {"num_warps": tiles.warps, "num_stages": tiles.stages}
    compile(linear._weight_gradient_kernel, constants)
for kernel in (norm._norm_kernel, norm._norm_gradient_kernel):
    compile(kernel, norm._row_sizes(768, 0.1) | {"num_warps": norm.WARPS})
"""


@pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="a matter of the compiler that Triton ships"
)
def test_kernels_compile_for_an_h100_and_fit_its_shared_memory(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Kernels that have not changed since another run of the tests, pytest's cache has compiled."""
    cache = pytestconfig.cache.mkdir("triton") if pytestconfig.cache is not None else tmp_path
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == 15
    assert all(int(shared) <= SHARED_MEMORY <= 227 * 1024 for _, shared in lines), run.stdout
