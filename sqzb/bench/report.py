"""Options that the benchmarks share, and reports that record the hardware and the versions."""

import argparse
import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqzb.files import write_json

LIBRARIES = (
    *("sqzb", "torch", "transformers", "tokenizers", "datasets"),
    *("onnx", "onnxruntime", "openvino", "executorch"),
)
# Instructions that decide which precision is fast, as /proc/cpuinfo has them on x86 and on aarch64.
CPU_FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimddp", "sve", "i8mm", "bf16"),
)


def parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return the parser of a script's arguments, with the script's docstring as its help.

    rounds: the default of --rounds; if given, there is also --json, for `write_report`.
    """
    form = argparse.RawDescriptionHelpFormatter
    arguments = argparse.ArgumentParser(description=description, formatter_class=form)
    if rounds is not None:
        arguments.add_argument(
            "--rounds", type=int, default=rounds, help="number of turns of each contestant"
        )
        arguments.add_argument("--json", type=Path, help="file to write all figures to")
    return arguments


def hardware() -> str:
    """Return the name of the GPU, or the number and name of the CPU's cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores of {_cpu()}"


def write_report(path: Path | None, **figures: Any) -> None:
    """Write the figures as JSON, with hardware, versions and time; do nothing if `path` is None."""
    if path is None:
        return
    about = {
        "hardware": hardware(),
        "versions": {name: number for name in LIBRARIES if (number := _version(name))},
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(path, about | figures)


def cpu_flags() -> list[str]:
    """Return those of CPU_FLAGS that this processor has; none where the system does not tell."""
    listed = [line for line in _cpuinfo() if line.lower().startswith(("flags", "features"))]
    flags = listed[0].split(":")[1].split() if listed else []
    return [flag for flag in CPU_FLAGS if flag in flags]


def _cpuinfo() -> list[str]:
    info = Path("/proc/cpuinfo")  # on Linux, where platform.processor() is empty
    return info.read_text(encoding="utf-8").splitlines() if info.exists() else []


def _cpu() -> str:
    lines = _cpuinfo()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
