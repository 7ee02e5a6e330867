"""By our operators or torch's, compiled or not, in fp32 or bf16, it is the same model."""

import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor

from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.heads import IGNORED
from sqzb.training.lamb import Lamb
from sqzb.training.optimizers import parameter_groups

CONFIG = SqueezeBertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=12,
    initializer_range=0.1,
)


def batch(step: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 50, (4, 12), generator=draw)
    mask = (torch.arange(12) < torch.tensor([12, 9, 5, 12])[:, None]).long()
    positions = torch.tensor([[1, 3], [0, 4], [2, 4], [7, 11]])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mlm_positions": positions,
        "mlm_labels": ids.gather(1, positions) // 2 + 5,  # something to learn
        "sop_labels": torch.tensor([0, 1, 1, -100]),
    }


def losses(
    steps: int, compiled: bool = False, precision: torch.dtype = torch.float32, dropout: float = 0.0
) -> list[float]:
    """Of so many steps with LAMB from the same weights."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = SqueezeBertForPreTraining(CONFIG.model_copy(update=rates))
    forward = torch.compile(model, dynamic=False) if compiled else model
    optimizer = Lamb(parameter_groups(model, 0.01), 0.01, (0.9, 0.999), 1e-6)
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            inputs = batch(step % 5)
            loss_sums = forward(**inputs).loss_sums
        loss = sum(
            loss_sum.loss / (inputs[f"{name}_labels"] != IGNORED).sum()
            for name, loss_sum in loss_sums.items()
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


@pytest.fixture(scope="module")
def plain() -> list[float]:
    found = losses(50)
    assert found[-1] < found[0] - 1
    return found


@pytest.mark.usefixtures("known_products")
def test_fifty_steps_of_torchs_own_products(plain: list[float]) -> None:
    found = losses(50)
    assert found[0] == pytest.approx(plain[0], rel=1e-5)
    assert found == pytest.approx(plain, rel=1e-4)


def test_fifty_compiled_steps_with_the_same_places_dropped() -> None:
    plain = losses(50, dropout=0.1)
    with inductor.patch(
        compile_threads=1
    ):  # the compiler's own processes would each import torch first
        found = losses(50, compiled=True, dropout=0.1)
    assert found[0] == pytest.approx(plain[0], rel=1e-5)
    assert found == pytest.approx(plain, rel=1e-4)


def test_steps_in_bf16(plain: list[float]) -> None:
    assert losses(20, precision=torch.bfloat16) == pytest.approx(plain[:20], rel=2e-2)
