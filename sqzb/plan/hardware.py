"""The table of known hardware: peaks, memory, measured speeds and prices."""

import datetime
import re
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from sqzb.errors import UserError

# Share of the peak that a device without a measurement is assumed to reach, by precision. In bf16
# it is about the H200's at both lengths; the share in fp32 is an assumption without a measurement.
EXPECTED_SHARE = {"bf16": 0.25, "fp32": 0.5}
# Positions of a device in a step from which measured speeds and the shares hold: 512 x 128 reached
# 94 % of the H200's speed in phase 1 (docs/laboratory.md). A smaller step waits for its launches.
FULL_STEP = 2**16
# Seconds that a step of the usual model takes at least: 16 sequences on an H200 with CUDA graphs
# (docs/laboratory.md).
LEAST_STEP = 0.0045


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Row):
    """A measured speed, in positions a second of one device, padding included."""

    length: int
    positions: int
    date: datetime.date
    source: str


class Price(_Row):
    """The price of an hour of one device in US dollars."""

    hour: float
    where: str
    date: datetime.date


class Peak(_Row):
    """FLOP/s of matrix products; None if the device lacks the precision."""

    bf16: float | None
    fp32: float


class Device(_Row):
    """A row of hardware.yaml, which explains the fields."""

    name: str
    cuda: str
    peak: Peak
    memory: int
    measured: tuple[Measured, ...] = ()
    prices: tuple[Price, ...] = ()


class Machine(NamedTuple):
    """Several devices of one kind."""

    device: Device
    number: int

    def __str__(self) -> str:
        return f"{self.number}x {self.device.name}"


@cache
def devices() -> tuple[Device, ...]:
    """Return all rows of hardware.yaml."""
    text = (files("sqzb.plan") / "hardware.yaml").read_text(encoding="utf-8")
    return tuple(Device.model_validate(row) for row in yaml.safe_load(text))


def by_cuda_name(name: str) -> Device | None:
    """Return the device that CUDA calls `name`, or None if the table has none."""
    return next((device for device in devices() if re.fullmatch(device.cuda, name)), None)


def machine(text: str) -> Machine:
    """Return the machine that `--hardware` describes, such as "8x H100" or "L4".

    Raises:
        UserError: the table has no such device.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x\u00d7]\s*)?(.+?)\s*", text, re.IGNORECASE)
    count, name = (match[1] or "1", match[2]) if match else ("1", text)
    for device in devices():
        if _plain(device.name) == _plain(name) and int(count) > 0:
            return Machine(device, int(count))
    known = ", ".join(device.name for device in devices())
    raise UserError(
        f'--hardware "{text}" is no known hardware. Give a number and a device, such as '
        f'"8x H100". Known devices: {known}.'
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia", "", name.lower())


def speed(
    device: Device, length: int, precision: Literal["bf16", "fp32"] | str, flops: float, usual: bool
) -> tuple[float, Measured | None]:
    """Return the positions a second of one device, and the measurement behind it, if there is one.

    length: tokens of a sequence.
    flops: floating-point operations of training on one position.
    usual: whether the model has the sizes that the measurements are of.
    """
    if usual and precision == "bf16":
        for measured in device.measured:
            if measured.length == length:
                return measured.positions, measured
    peak = device.peak.bf16 if precision == "bf16" else device.peak.fp32
    if peak is None:  # torch computes bf16 by fp32 there
        peak, precision = device.peak.fp32, "fp32"
    return EXPECTED_SHARE[precision] * peak / flops, None
