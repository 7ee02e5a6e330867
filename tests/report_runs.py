"""Run folders as training leaves them, written without training, for tests of reports."""

import json
from pathlib import Path
from typing import Any

from sqzb.recipe import FinetuneRecipe, PretrainRecipe, Section, dump_recipe
from sqzb.training.run_folder import EVALUATION, METRICS, RECIPE, RUN

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}


def write_run(
    folder: Path, recipe: Section, lines: list[dict[str, Any]], finished: bool = True, **run: Any
) -> Path:
    """Write a run folder. run: further content of run.json."""
    folder.mkdir(parents=True)
    (folder / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    about = {"started": "2026-01-02T03:04:05+00:00", "hardware": {"device": "cpu"}, **run}
    (folder / RUN).write_text(json.dumps(about))
    (folder / METRICS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if finished:
        (folder / "final").mkdir()
    return folder


def pretrained(
    folder: Path,
    steps: int = 40,
    evaluated: bool = True,
    reached: int | None = None,
    start_from: str | None = None,
    **changes: Any,
) -> Path:
    """Write a pretraining run of 1,000 tokens a step, at 500 tokens a second.

    reached: its last step; changes: further content of run.json.
    """
    model = None if start_from else SIZES
    recipe = PretrainRecipe.model_validate({"steps": steps, "model": model})
    recipe = recipe.model_copy(update={"output": str(folder), "start_from": start_from})
    lines: list[dict[str, Any]] = []
    for step in range(1, (reached or steps) + 1):
        figures = {"tokens": 1000 * step, "loss": 9 / step + 1, "mlm_loss": 9 / step}
        figures |= {"mlm_accuracy": 0.1, "sop_accuracy": 0.5, "lr": 1e-3 / step, "grad_norm": 1.5}
        lines.append({"step": step, **figures, "tokens_per_second": 500})
        if evaluated and step % 10 == 0:
            heldout = {"heldout_mlm_loss": 10 / step, "heldout_mlm_accuracy": 0.2}
            lines.append({"step": step, **heldout})
    return write_run(folder, recipe, lines, reached is None, **changes)


def finetuned(folder: Path, score: float = 0.5, **keys: Any) -> Path:
    """Write a finetuning run with a confusion matrix. keys: of its recipe."""
    recipe = FinetuneRecipe.model_validate({"task": "rte", "output": str(folder), **keys})
    losses = [{"step": step, "task_loss": 1 / step, "lr": 1e-3} for step in range(1, 11)]
    last = {"step": 10, "epoch": 10.0, "validation_accuracy": score, "validation_score": score}
    write_run(folder, recipe, [*losses, last])
    confusion = [[3, 1], [2, 4]]
    by_label = {"yes": {"precision": 0.6, "recall": 0.75, "f1": 2 / 3, "support": 4}}
    details = {"confusion": confusion, "by_label": by_label}
    evaluation = {"labels": ["yes", "no"], "splits": {"validation": details}}
    (folder / EVALUATION).write_text(json.dumps(evaluation))
    return folder
