"""What the tests of model cards share: a card read by the Hub's own library, and its Python run."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from sqzb.training.card import CARD, MODEL_ID, Facts, Figure, Measured, Table

FACTS = Facts(
    title="finetuned on reviews",
    pipeline="text-classification",
    start=None,
    datasets=(),
    licences={"reviews": None},
    language=None,
    usage="",
    labels=("bad", "good"),
    data=(Table(("split", "examples"), [("train", "40")]),),
    hashes={"the training set": "ab" * 32},
    measured=Measured("reviews", "reviews"),
    figures=[Figure("macro_f1", 0.5, "share, 0 to 1", "f1", "validation")],
    length=128,
    limits=(),
)


def text_of(run: Path) -> str:
    return (run / "final" / CARD).read_text(encoding="utf-8")


def read_card(run: Path) -> ModelCardData:
    """Read a card as the Hub does, and check that its metadata is the same in every form."""
    data: Any = ModelCard.load(run / "final" / CARD).data  # raises an error for wrong metadata
    values = yaml.safe_load(text_of(run).split("---\n")[1])
    assert list(values) == sorted(values)
    index = values.get("model-index")
    if index:
        name, results = model_index_to_eval_results(index)
        assert eval_results_to_model_index(name, results) == index
        assert results == data.eval_results and name == data.model_name
        assert all(isinstance(result, EvalResult) for result in results)
    assert ModelCardData(**data.__dict__).to_dict() == values == data.to_dict()
    assert isinstance(data, ModelCardData)
    return data


def results(run: Path) -> dict[str, Any]:
    """Return the value of each figure of the metadata by its name."""
    found = read_card(run).eval_results or []
    return {str(result.metric_name): result.metric_value for result in found}


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
