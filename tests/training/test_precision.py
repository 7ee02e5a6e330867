"""The precision of a run: as asked, and for auto that of the device."""

import pytest
import torch

from sqzb.training.engine import chosen_precision


def test_a_precision_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("nobody asked"))
    assert chosen_precision("fp32") == "fp32" and chosen_precision("bf16") == "bf16"


@pytest.mark.parametrize(
    ("gpu", "units", "precision"),
    [(False, True, "fp32"), (True, False, "fp32"), (True, True, "bf16")],
)
def test_auto_is_bf16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, units: bool, precision: str
) -> None:
    def supported(including_emulation: bool) -> bool:
        assert not including_emulation
        return units

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert chosen_precision("auto") == precision
