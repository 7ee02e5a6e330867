"""Exports of tiny models, for tests."""

import importlib.util
from pathlib import Path

import pytest

from own_runs import write_own
from saved_runs import save_run
from sqzb.data.own import open_own
from sqzb.export.folder import Format, Precision
from sqzb.export.heads import Head
from sqzb.export.job import Wanted, export
from sqzb.export.runtimes import RUNNER, WRITERS
from sqzb.finetuning.data import write_known
from sqzb.recipe import FinetuneRecipe, dump_recipe

FORMATS: list[Format] = ["onnx", "openvino", "executorch"]


def need(format: Format) -> None:
    """Skip a test whose runtime is not installed."""
    for module in (*WRITERS[format], RUNNER[format]):
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def exported(
    run: Path,
    format: Format,
    head: Head | None = None,
    precision: Precision = "fp32",
    force: bool = False,
) -> Path:
    """Export a run to a folder beside it."""
    output = run.parent / f"{run.name}-{format}-{precision}-{head}"
    export(Wanted(str(run), format, precision, head, output, force))
    return output


def own_run(folder: Path, vocabulary: Path) -> Path:
    """Write a run with random weights on own data with validation labels."""
    files = write_own(folder / "data", "classes")
    run = save_run(folder / "run", vocabulary, ("low", "mid", "top"))
    recipe = FinetuneRecipe.model_validate(
        {"data": {"train": list(files.train), "validation": list(files.validation)}}
    )
    (run / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    write_known(run, open_own(files).known)
    return run
