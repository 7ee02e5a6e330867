"""finetune and eval with the default model and GLUE, from a hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.hub
MODEL = "models/squeezebert/squeezebert-uncased"


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
def test_from_the_hub_to_a_score(
    person: Any, write_model: Callable[[Path, str], None], weights: str
) -> None:
    person.hub.publish(MODEL, lambda folder: write_model(folder, weights))
    # Such a rate leaves the weights what they were, so that those of the end are those of the hub.
    said = person.runs("finetune", "--task", "mrpc", "epochs=1", "lr=1e-12")
    plan = " ".join(said.out.split())
    assert "mrpc: 48 training and 16 validation examples" in plan
    assert "parameters with heads, from squeezebert/squeezebert-uncased" in plan
    assert "Warning" not in said.err
    run = person.folder / "runs" / "mrpc"
    final = load_file(run / "final" / "model.safetensors")
    file = person.hub.folder / MODEL / weights
    given = (
        load_file(file) if weights.endswith("safetensors") else torch.load(file, weights_only=True)
    )
    shared = final.keys() & given.keys()
    assert sum("encoder.layers" in name for name in shared) > 20
    for name in shared:
        assert torch.allclose(final[name], given[name].float(), rtol=0, atol=1e-8)
    person.runs("eval", "runs/mrpc", "--json", "figures.json")
    figures = json.loads((person.folder / "figures.json").read_text())
    assert figures["splits"]["validation"]["examples"] == 16
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: last[f"validation_{name}"] for name in ("accuracy", "f1")} == {
        name: pytest.approx(figures[name]) for name in ("accuracy", "f1")
    }


def test_offline_a_run_is_the_same_from_the_cache(person: Any) -> None:
    person.runs("finetune", "--task", "mrpc", "epochs=1", "--output", "online")
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    person.runs("finetune", "--task", "mrpc", "epochs=1", "--output", "offline", **offline)
    person.runs("eval", "offline", **offline)
    first, second = (
        (person.folder / run / "final" / "model.safetensors").read_bytes()
        for run in ("online", "offline")
    )
    assert first == second
