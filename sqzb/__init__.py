"""sqzb pretrains and finetunes SqueezeBERT end to end."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqzb.using import FinetunedModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: "str | Path") -> "FinetunedModel":
    """Open the finetuned model of a run, a saved folder or a Hub id, for `model.predict(texts)`.

    Raises:
        UserError: There is no such model, it cannot be opened, or it has no classifier.
    """
    from sqzb.using import load as load_model  # torch is imported here, and not with sqzb

    return load_model(path)
