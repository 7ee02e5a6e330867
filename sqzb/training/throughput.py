"""The speed of a run, absolute and as a fraction of its devices' peak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch.nn.functional import linear
from torch.utils.benchmark import Timer

from sqzb.plan.hardware import by_cuda_name
from sqzb.training.processes import warn

SECONDS = 0.05  # duration of a measurement, at least


def peak_flops(device: torch.device, precision: str) -> float:
    """Return the device's peak FLOP/s in matrix products, from hardware.yaml or measured."""
    known = by_cuda_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    rate = None
    if known is not None:
        rate = known.peak.bf16 if precision == "bf16" else known.peak.fp32
    return rate or _measured(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def own_peak_flops(accelerator: Accelerator, precision: str) -> float:
    """Return the peak FLOP/s of this process's device; warn if bf16 is slower than fp32."""
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
    """Return the best rate of several products of large squares, measured once in a process.

    The squares come from a generator of their own, so that torch's generator is not advanced.
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
    """The speed of a run.

    tokens_per_second: tokens of all processes, without padding.
    mfu: model FLOP utilisation, the training's FLOPs (padding included) as a fraction of the
    devices' peak.
    data_wait: fraction of the time in which this process waited for micro-batches.
    """

    tokens_per_second: int
    mfu: float
    data_wait: float

    def texts(self) -> tuple[str, str]:
        """Return the speed, and the shares, for a progress bar."""
        speed = f"{self.tokens_per_second:,} tok/s"
        return speed, f"mfu {self.mfu:.0%}  data {self.data_wait:.0%}"


class ThroughputMeter:
    """A meter of the throughput since the last reading, without pauses.

    peak: FLOP/s of the devices of all processes.
    """

    def __init__(self, peak: float) -> None:
        self._peak = peak
        self._begin()

    def _begin(self) -> None:
        self._tokens, self._flops, self._waited, self._since = 0.0, 0.0, 0.0, time.perf_counter()

    def count(self, tokens: float, flops: float) -> None:
        """Count the tokens and FLOPs of a step in all processes."""
        self._tokens += tokens
        self._flops += flops

    def read(self) -> Throughput:
        """Return the throughput since the last reading."""
        seconds = time.perf_counter() - self._since
        rate = self._tokens / seconds
        mfu = self._flops / seconds / self._peak
        waited = self._waited / seconds
        self._begin()
        return Throughput(round(rate), round(mfu, 4), round(waited, 4))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block's time as waiting for micro-batches."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the block's time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
