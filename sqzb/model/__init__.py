"""SqueezeBERT: one set of classes and one format on disk for all commands.

The classes are imported at their first use, so that reading a recipe, which needs only the
configuration, does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqzb.model.config import SqueezeBertConfig
    from sqzb.model.encoder import SqueezeBertModel
    from sqzb.model.heads import (
        SqueezeBertForMaskedLM,
        SqueezeBertForPreTraining,
        SqueezeBertForSequenceClassification,
        SqueezeBertForTokenClassification,
    )

__all__ = [
    "SqueezeBertConfig",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForPreTraining",
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForTokenClassification",
    "SqueezeBertModel",
]

_MODULES = {"SqueezeBertConfig": "config", "SqueezeBertModel": "encoder"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'heads')}"), name)
