"""The table of hardware: names as people and CUDA write them."""

import pytest

from sqzb.errors import UserError
from sqzb.plan.hardware import by_cuda_name, devices, machine


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("8x H100", "H100", 8),
        ("h100", "H100", 1),
        ("4 x nvidia-a100", "A100", 4),
        ("2\u00d7A100-40GB", "A100 40GB", 2),
        (" rtx4090 ", "RTX 4090", 1),
    ],
)
def test_a_machine_is_found_by_its_name(text: str, name: str, number: int) -> None:
    found = machine(text)
    assert (found.device.name, found.number) == (name, number)


@pytest.mark.parametrize("text", ["", "8x", "0x H100", "H1000", "-1x H100", "x H100 x"])
def test_unknown_hardware_names_the_known(text: str) -> None:
    with pytest.raises(UserError, match="Known devices: H200"):
        machine(text)


@pytest.mark.parametrize(
    ("cuda", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_cudas_names(cuda: str, name: str | None) -> None:
    device = by_cuda_name(cuda)
    assert (device.name if device else None) == name


def test_every_row_has_its_sources() -> None:
    names = [device.name for device in devices()]
    assert len(set(names)) == len(names)
    for device in devices():
        assert all(measured.source for measured in device.measured)
        assert all(offer.where and offer.hour > 0 for offer in device.prices)
