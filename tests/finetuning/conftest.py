"""What the tests of finetuning share: teachers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import WORDS
from glue_runs import tiny
from sqzb.glue.tasks import task
from sqzb.model import SqueezeBertForSequenceClassification
from sqzb.tokenizer import train_tokenizer

MakeTeacher = Callable[..., Path]
MRPC = task("mrpc")


@pytest.fixture
def teacher(tmp_path: Path) -> MakeTeacher:
    """Make a classifier with large random weights, wider than a student of `tiny`, whose
    vocabulary keeps capitals.
    """

    def make(name: str = "teacher", labels: tuple[str, ...] = MRPC.labels, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        vocabulary = train_tokenizer([" ".join(WORDS)] * 2, 90, lowercase=False)
        sizes = {"hidden_size": 32, "initializer_range": 0.5, "id2label": dict(enumerate(labels))}
        config = tiny(vocabulary.get_vocab_size(), **sizes)
        SqueezeBertForSequenceClassification(config).save_pretrained(tmp_path / name, vocabulary)
        return tmp_path / name

    return make
