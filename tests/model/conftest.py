"""Small models with weights large enough that a wrong number shows, and batches with padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqzb.model.config import SqueezeBertConfig

Config = Callable[..., SqueezeBertConfig]
Scramble = Callable[..., Any]
Batch = Callable[..., dict[str, Tensor]]

TINY = SqueezeBertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=24,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@pytest.fixture(scope="session")
def tiny() -> Config:
    """A small configuration without dropout, with the changes asked for."""
    return lambda **changes: SqueezeBertConfig(**(TINY.model_dump() | changes))


@pytest.fixture(scope="session")
def scramble() -> Scramble:
    """Random numbers of standard deviation 0.2 into every parameter, biases and LayerNorms
    included.
    """

    def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                centre = 1.0 if name.lower().endswith("layernorm.weight") else 0.0
                parameter.normal_(centre, 0.2, generator=random)
        return model

    return scrambled


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Token numbers, types of both kinds, and a mask: row 0 is full, the others end in padding."""

    def batch_of(
        config: SqueezeBertConfig, rows: int = 4, length: int = 20, seed: int = 0
    ) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(seed)
        ends = torch.randint(2, length, (rows,), generator=random)
        ends[0] = length
        return {
            "input_ids": torch.randint(0, config.vocab_size, (rows, length), generator=random),
            "attention_mask": (torch.arange(length) < ends[:, None]).long(),
            "token_type_ids": torch.randint(
                0, config.type_vocab_size, (rows, length), generator=random
            ),
        }

    return batch_of
