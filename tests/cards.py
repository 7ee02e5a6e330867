"""What the tests of model cards share: a card read by the Hub's own library, and its Python run."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from sqzb.training.card import CARD, MODEL_ID


def text_of(run: Path) -> str:
    return (run / "final" / CARD).read_text(encoding="utf-8")


def read_card(run: Path) -> ModelCard:
    """Read a card as the Hub does, and check that its metadata is the same in every form."""
    card = ModelCard.load(run / "final" / CARD)  # raises an error for wrong metadata
    values = yaml.safe_load(text_of(run).split("---\n")[1])
    assert list(values) == sorted(values)
    index = values.get("model-index")
    if index:
        name, results = model_index_to_eval_results(index)
        assert eval_results_to_model_index(name, results) == index
        assert results == card.data.eval_results and name == card.data.model_name
        assert all(isinstance(result, EvalResult) for result in results)
    assert ModelCardData(**card.data.__dict__).to_dict() == values == card.data.to_dict()
    return card


def results(run: Path) -> dict[str, Any]:
    """Return the value of each figure of the metadata by its name."""
    found = read_card(run).data.eval_results or []
    return {result.metric_name: result.metric_value for result in found}


def run_usage(run: Path) -> list[dict[str, Any]]:
    """Run the Python blocks of a card, three lines each; return what each has defined."""
    blocks = re.findall(r"```python\n(.*?)```", text_of(run), re.DOTALL)
    found = []
    for block in blocks:
        *before, last = block.replace(MODEL_ID, str(run / "final")).splitlines()
        assert len(before) == 2
        names: dict[str, Any] = {}
        exec("\n".join([*before, f"answer = {last}"]), names)
        found.append(names)
    return found
