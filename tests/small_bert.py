"""A BERT of transformers that is made in no time."""

from pathlib import Path
from typing import Any

import torch

from sqzb.bench.general import AUTO
from sqzb.export.heads import Head
from sqzb.tokenizer import load_tokenizer, save_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "initializer_range": 0.5,
}


def bert(head: Head, **changes: Any) -> Any:
    """Return a model with random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES | {"vocab_size": 100, "num_labels": 3} | changes)
    return getattr(transformers, AUTO[head]).from_config(config).eval()


def save_bert(folder: Path, vocabulary: Path, head: Head, **changes: Any) -> Path:
    """Save a model with random weights and a tokenizer."""
    tokenizer = load_tokenizer(vocabulary)
    bert(head, vocab_size=tokenizer.get_vocab_size(), **changes).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, 32)
    return folder
