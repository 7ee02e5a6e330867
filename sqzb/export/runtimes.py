"""The runtimes of exports: whether they are installed, and how they open a model."""

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzb.errors import UserError
from sqzb.export.folder import MODEL_FILES, ExportRecord, Format, Precision
from sqzb.export.heads import INPUTS

# Inputs by name, int64 (batch, length), to the outputs in the order of their names.
Session = Callable[[Mapping[str, NDArray[np.int64]]], Sequence[NDArray[np.float32]]]

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
    "executorch": ("fp32",),
}
NAMES: dict[Format, str] = {
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
}
# Modules that write an export, and the module that runs it.
WRITERS: dict[Format, tuple[str, ...]] = {"onnx": ("onnx",), "openvino": (), "executorch": ()}
RUNNER: dict[Format, str] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "executorch": "executorch.runtime",
}


def check_installed(format: Format, writing: bool = False) -> dict[str, str]:
    """Return the versions of the modules that an export needs.

    writing: whether the export is made, and not only run.

    Raises:
        UserError: a module is not installed.
    """
    versions = {}
    for name in (*(WRITERS[format] if writing else ()), RUNNER[format]):
        package = name.partition(".")[0]
        try:
            _import(name)
            versions[package] = version(package)
        except ImportError as error:
            raise UserError(
                f"The format {format} needs {package} ({error}): pip install 'sqzb[{format}]'"
            ) from error
    return versions


def _import(name: str) -> ModuleType:
    with quiet(), without_reports():
        return importlib.import_module(name)


@contextmanager
def without_reports() -> Iterator[None]:
    """Hide openvino_telemetry, which reports imports and conversions over the network."""
    reporter = "openvino_telemetry"
    before = sys.modules.pop(reporter, None)
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings for developers, such as that an interface may change; keep the log's setup."""
    handlers, before = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers


def check_precision(format: Format, precision: Precision) -> None:
    """Check that the format is offered in the precision, and that this processor has it.

    Raises:
        UserError: the format or the processor lacks the precision.
    """
    offered = PRECISIONS[format]
    if precision not in offered:
        raise UserError(
            f"--precision {precision} is not offered for --format {format}. Give "
            f"{' or '.join(offered)}."
        )
    if precision == "bf16" and "BF16" not in _abilities():
        raise UserError(
            "This processor has no products in bf16 (avx512_bf16 or amx_bf16), so OpenVINO would "
            "compute in fp32. Give --precision fp32, or use a processor that has them."
        )


def _abilities() -> Sequence[str]:
    import openvino

    names: Sequence[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return names


def open_session(folder: Path, record: ExportRecord, threads: int | None = None) -> Session:
    """Open the model of an export on this processor.

    threads: of a computation; None: the runtime's own choice.

    Raises:
        UserError: the runtime is not installed, the processor lacks the precision, or the file is
            damaged.
    """
    check_installed(record.format)
    check_precision(record.format, record.precision)
    path = folder / MODEL_FILES[record.format]
    openers = {"onnx": _open_onnx, "openvino": _open_openvino, "executorch": _open_executorch}
    try:
        return openers[record.format](path, record, threads)
    except Exception as error:  # the runtimes raise all kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"{NAMES[record.format]} does not open {path} ({reason:.300}). Export the model again."
        ) from error


def _open_onnx(path: Path, record: ExportRecord, threads: int | None) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[np.float32]]:
        outputs: Sequence[NDArray[np.float32]] = session.run(record.outputs, dict(inputs))
        return outputs

    return run


def _open_openvino(path: Path, record: ExportRecord, threads: int | None) -> Session:
    import openvino

    # Without the hint, OpenVINO computes in bf16 wherever the processor has it.
    types = {"fp32": "f32", "bf16": "bf16"}
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": types[record.precision]}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[np.float32]]:
        results = request.infer(dict(inputs))
        # The next call writes into the same memory.
        return [np.array(results[name]) for name in record.outputs]

    return run


def _open_executorch(path: Path, record: ExportRecord, threads: int | None) -> Session:
    """Open a program; `threads` holds for all programs of this process."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    if threads is not None:
        portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path)
    program.load_method("forward")  # a damaged file is reported here

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[np.float32]]:
        method = program.load_method("forward")
        columns = [torch.from_numpy(inputs[name]) for name in INPUTS if name in inputs]
        texts = []
        for row in zip(*(column.split(1) for column in columns), strict=True):
            texts.append(method.execute(list(row)))
        return [torch.cat(outputs).numpy() for outputs in zip(*texts, strict=True)]

    return run
