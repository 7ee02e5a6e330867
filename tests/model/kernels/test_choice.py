"""Which models run by the kernels."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining, layers
from sqzb.model.kernels.choice import choose_kernels
from sqzb.recipe import FinetuneRecipe

pytest.importorskip("triton", reason="Triton is for Linux alone")
GPU = torch.device("cuda")
FAST: dict[str, Any] = {"compile": True, "precision": "bf16"}


@pytest.fixture(autouse=True)
def shared_memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a block may have on the made-up GPU: an H100's."""
    properties = SimpleNamespace(shared_memory_per_block_optin=232_448)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return properties


def by_kernels(device: torch.device = GPU, heads: int = 4, **settings: Any) -> bool:
    """Of a model whose heads, with 4 of them, are 16 wide."""
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64}
    model = SqueezeBertForPreTraining(
        SqueezeBertConfig(vocab_size=20, num_attention_heads=heads, **sizes)
    )
    choose_kernels(FinetuneRecipe(**settings), model, device)
    (found,) = {layer.by_kernels for layer in model.transformer.encoder.layers}
    assert layers.by_kernels(model) == found
    return bool(found)


@pytest.mark.skipif(
    torch.version.hip is not None, reason="the device of that name is no NVIDIA GPU"
)
def test_a_run_in_bf16_on_a_gpu_is_by_kernels() -> None:
    assert by_kernels(**FAST)
    assert by_kernels(precision="bf16")
    assert by_kernels(kernels=True)
    assert not by_kernels(**FAST, kernels=False)
    assert not by_kernels(compile=True)
    assert not by_kernels(torch.device("cpu"), **FAST)


@pytest.mark.skipif(
    torch.version.hip is not None, reason="the device of that name is no NVIDIA GPU"
)
def test_a_gpu_with_less_shared_memory_is_not_unless_it_is_asked_for(
    shared_memory: SimpleNamespace,
) -> None:
    shared_memory.shared_memory_per_block_optin = 166_912  # an A100's
    assert not by_kernels(**FAST)
    assert by_kernels(kernels=True)


def test_a_model_that_does_not_go_with_them_is_not_unless_it_is_asked_for() -> None:
    assert not by_kernels(heads=8, **FAST)
    with pytest.raises(UserError, match=r"kernels: the kernels need heads of .* Leave it null"):
        by_kernels(heads=8, **FAST, kernels=True)


def test_they_are_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(
        UserError, match=r"kernels: they run on an NVIDIA GPU, and this is cpu\. Leave it null\."
    ):
        by_kernels(torch.device("cpu"), kernels=True)
