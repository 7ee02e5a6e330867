"""A cell that fails has a reason, and its process has ended."""

import os
from pathlib import Path

import pytest

from sqzb.bench.cells import SQZB, Cell, CellFailed, CellProcess
from sqzb.export.heads import INPUTS

CELL = Cell(
    model="model",
    form=SQZB,
    runtime="onnx",
    precision="fp32",
    folder=Path("nowhere"),
    head="encoder",
    inputs=INPUTS,
    cores=tuple(sorted(os.sched_getaffinity(0))[:1]),
    is_dynamic=False,
)


def test_a_model_that_does_not_open_is_the_reason() -> None:
    process = CellProcess(CELL)
    try:
        with pytest.raises(CellFailed, match="nowhere"):
            process.open([])
    finally:
        process.close()


def test_a_process_that_ends_is_the_reason() -> None:
    process = CellProcess(CELL)
    try:
        process.kill()
        with pytest.raises(CellFailed, match="memory is too little"):
            process.turn()
    finally:
        process.close()
