"""The runtimes of a race of latency: the precisions that each has here, and how a cell is opened.

A format of `sqzb export` is a runtime here too, without a further line.
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

from sqzb.bench.cells import GENERAL, Cell, Inputs, Outputs
from sqzb.bench.report import cpu_flags
from sqzb.errors import UserError
from sqzb.export.folder import Format, Precision, read_record
from sqzb.export.heads import ENCODER, OUTPUTS
from sqzb.export.runtimes import PRECISIONS, check_installed, check_precision, open_session

EAGER, COMPILED = "torch", "compiled"
OF_TORCH: tuple[Precision, ...] = ("fp32", "bf16")
# Precisions of each runtime, in the order of the tables.
OFFERED: dict[str, tuple[Precision, ...]] = {EAGER: OF_TORCH, COMPILED: OF_TORCH}
OFFERED.update(PRECISIONS.items())
ALL_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one of aarch64


def format_of(runtime: str) -> Format | None:
    """Return the format of `sqzb export` that a runtime is; None for torch."""
    return next((format for format in PRECISIONS if format == runtime), None)


def check_runtime(runtime: str, writing: bool = True) -> None:
    """Check that a runtime can be used here.

    writing: whether models are exported for it, and not only run.

    Raises:
        UserError: a package is missing, or a compiler.
    """
    format = format_of(runtime)
    if format is not None:
        check_installed(format, writing)
    if runtime == COMPILED and not _has_compiler():
        raise UserError(
            "torch compiles models by a C++ compiler, and neither g++ nor clang++ nor the "
            "program that CXX names is installed. Install one, or give --runtimes without "
            f"{COMPILED}."
        )


def _has_compiler() -> bool:
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return any(shutil.which(name) for name in names if name)


def check_cpu(runtime: str, precision: Precision) -> None:
    """Check that this processor has a precision that the runtime offers.

    Raises:
        UserError: the processor lacks the precision.
    """
    if precision == "bf16" and not BF16_FLAGS & set(cpu_flags()):
        raise UserError(
            "This processor has no products in bf16 (avx512_bf16 or amx_bf16), so bf16 would be "
            "slower than fp32, or be fp32. Give --precisions fp32,int8, or use a processor that "
            "has them."
        )
    format = format_of(runtime)
    if format is not None:
        check_precision(format, precision)


def open_cell(cell: Cell) -> Callable[[Inputs], Outputs]:
    """Open the model of a cell as a function from inputs to the outputs of the head.

    Raises:
        UserError: the runtime does not open the model.
    """
    if format_of(cell.runtime) is None:
        return _open_torch(cell)
    session = open_session(cell.folder, read_record(cell.folder), cell.threads)

    def run(inputs: Inputs) -> Outputs:
        return session({name: inputs[name] for name in cell.inputs})

    return run


def _open_torch(cell: Cell) -> Callable[[Inputs], Outputs]:
    import torch

    torch.set_num_threads(cell.threads)
    model = _torch_model(cell)
    if cell.precision == "bf16":
        model = model.to(torch.bfloat16)
    forward = model
    if cell.runtime == COMPILED:
        forward = torch.compile(model, dynamic=cell.is_dynamic)

    @torch.inference_mode()
    def run(inputs: Inputs) -> Outputs:
        tensors = {name: torch.from_numpy(inputs[name]) for name in cell.inputs}
        result = forward(**tensors)
        return [getattr(result, name).float().numpy() for name in OUTPUTS[cell.head]]

    return run


def _torch_model(cell: Cell) -> Any:
    """Open a saved model in torch: sqzb's own modules as its commands set them up, or others'."""
    if cell.form == GENERAL:
        from sqzb.bench.general import open_model

        return open_model(cell.folder, cell.head)
    from sqzb.model.open import open_classifier, open_encoder
    from sqzb.training.cpu import tune_cpu

    tune_cpu()
    if cell.head == ENCODER:
        return open_encoder(cell.folder).model.eval()
    return open_classifier(cell.folder).model.eval()
