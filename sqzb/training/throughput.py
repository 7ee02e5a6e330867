"""How fast a run trains, and how much of what its devices can do that is."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch.nn.functional import linear
from torch.utils.benchmark import Timer

from sqzb.training.processes import warn

# By the name that CUDA gives a device: the dense rates of matrix products in bf16 (None where the
# device has none) and in fp32, of which torch makes no TF32 unless it is told to; FLOP/s, from
# NVIDIA's data sheets and, for GeForce, its white papers (halved where they give the sparse rate).
# A part of a device (MIG) is another name, and is measured.
PEAKS: dict[str, tuple[float | None, float]] = {
    r"NVIDIA H200": (989.5e12, 67e12),
    r"NVIDIA H200 NVL": (835.5e12, 60e12),
    r"NVIDIA H100 80GB HBM3": (989.5e12, 67e12),
    r"NVIDIA H100 PCIe": (756.5e12, 51e12),
    r"NVIDIA H100 NVL": (835.5e12, 60e12),
    r"(NVIDIA )?A100[- ](SXM4-\d+GB|PCIE-\d+GB|80GB PCIe)": (312e12, 19.5e12),
    r"NVIDIA L4": (121e12, 30.3e12),
    r"NVIDIA A10": (125e12, 31.2e12),
    r"(NVIDIA |Tesla )T4": (None, 8.1e12),
    r"(NVIDIA |Tesla )V100-SXM2-\d+GB": (None, 15.7e12),
    r"(NVIDIA |Tesla )V100-PCIE-\d+GB": (None, 14e12),
    r"NVIDIA GeForce RTX 4090": (165.2e12, 82.6e12),
    r"NVIDIA GeForce RTX 3090": (71e12, 35.6e12),
}
SECONDS = 0.05  # of measuring, at least


def peak_flops(device: torch.device, precision: str) -> float:
    """The most FLOP/s that the device makes in matrix products: by its name where that is known, else as measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    known = next(
        (rates for pattern, rates in PEAKS.items() if re.fullmatch(pattern, name)), (None, None)
    )
    rate = known[0] if precision == "bf16" else known[1]
    return rate or _measured(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def own_peak_flops(accelerator: Accelerator, precision: str) -> float:
    """Return the peak FLOP/s of this process's device; warn where bf16 is slower than fp32."""
    device = accelerator.device
    peak = peak_flops(device, precision)
    if precision == "bf16" and peak < (in_fp32 := peak_flops(device, "fp32")):
        warn(
            accelerator,
            f"bf16: this {device.type.upper()} multiplies {in_fp32 / peak:.1f} times as fast in "
            "fp32. Set precision=fp32.",
        )
    return peak


@cache
def _measured(device: torch.device, number: torch.dtype) -> float:
    """Return the best of some products of large squares, measured once for a process.

    Their numbers come from a generator of their own.
    """
    n = 1024 if device.type == "cpu" else 4096
    square = torch.rand(n, n, generator=torch.Generator().manual_seed(0)).to(device, number)
    timer = Timer(
        "linear(square, square)",
        globals={"square": square, "linear": linear},
        num_threads=torch.get_num_threads(),
    )
    return 2 * n**3 / min(timer.blocked_autorange(min_run_time=SECONDS).times)


class Throughput(NamedTuple):
    """tokens_per_second: of all processes, padding not among them; mfu: model FLOP utilisation, the share of the
    devices' peak that the training's FLOPs make, padding computed like the rest; data_wait: the
    share of the time in which this process waited for micro-batches."""

    tokens_per_second: int
    mfu: float
    data_wait: float

    def __str__(self) -> str:
        return f"{self.tokens_per_second:,} tok/s  mfu {self.mfu:.0%}  data {self.data_wait:.0%}"


class ThroughputMeter:
    """The throughput since the last reading, pauses left out.

    peak: FLOP/s of the devices of all processes.
    """

    def __init__(self, peak: float) -> None:
        self._peak = peak
        self._begin()

    def _begin(self) -> None:
        self._tokens, self._flops, self._waited, self._since = 0.0, 0.0, 0.0, time.perf_counter()

    def count(self, tokens: float, flops: float) -> None:
        """A step has trained on so many tokens, by so many FLOPs, in all processes."""
        self._tokens += tokens
        self._flops += flops

    def read(self) -> Throughput:
        seconds = time.perf_counter() - self._since
        rate, used, waited = (
            self._tokens / seconds,
            self._flops / seconds / self._peak,
            self._waited / seconds,
        )
        self._begin()
        return Throughput(round(rate), round(used, 4), round(waited, 4))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block's time is spent on waiting for micro-batches."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The block's time does not count."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
