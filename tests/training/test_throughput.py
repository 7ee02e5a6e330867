"""The throughput is that of the time between readings, and the peak that of the device."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqzb.training import throughput
from sqzb.training.throughput import Throughput, ThroughputMeter, peak_flops

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
seconds = st.floats(0.01, 100)
# Of a step: trained on tokens, by FLOPs, seconds of waiting, training and pausing.
steps = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(0, 1e15), seconds, seconds, seconds), min_size=1
)


@given(st.lists(steps, min_size=1, max_size=4), st.floats(1e9, 1e15))
def test_a_reading_tells_of_the_steps_since_the_last(
    readings: list[list[tuple[int, float, float, float, float]]], peak: float
) -> None:
    clock = [5.0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
        meter = ThroughputMeter(peak)
        for made in readings:
            for tokens, flops, waited, trained, paused in made:
                with meter.waiting():
                    clock[0] += waited
                clock[0] += trained
                meter.count(tokens, flops)
                with meter.paused():
                    clock[0] += paused
            found = meter.read()
            all_tokens, all_flops, waited, trained, _ = (
                sum(column) for column in zip(*made, strict=True)
            )
            spent = waited + trained
            assert found.tokens_per_second == pytest.approx(all_tokens / spent, rel=1e-6, abs=0.6)
            assert found.mfu == pytest.approx(all_flops / spent / peak, rel=1e-6, abs=1e-4)
            assert found.data_wait == pytest.approx(waited / spent, abs=1e-4)


def test_it_reads_as_a_line() -> None:
    assert Throughput(9012, 0.314, 0.0).texts() == ("9,012 tok/s", "mfu 31%  data 0%")


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12, 19.5e12),
        ("A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA A100 80GB PCIe", 312e12, 19.5e12),
        ("NVIDIA H100 80GB HBM3", 989.5e12, 67e12),
        ("NVIDIA H100 PCIe", 756.5e12, 51e12),
        ("NVIDIA H200", 989.5e12, 67e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA A10", 125e12, 31.2e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
        ("Tesla T4", None, 8.1e12),
        ("Tesla V100-SXM2-16GB", None, 15.7e12),
        # Others, and parts of a device, whose names begin like one that is known.
        ("NVIDIA A10G", None, None),
        ("NVIDIA L40S", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA GeForce RTX 3090 Ti", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
    ],
)
def test_a_known_gpu_has_the_rate_of_its_data_sheet_and_any_other_is_measured(
    name: str, bf16: float | None, fp32: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(throughput, "_measured", lambda device, number: str(number))
    assert peak_flops(GPU, "bf16") == (bf16 or "torch.bfloat16")
    assert peak_flops(GPU, "fp32") == (fp32 or "torch.float32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_is_measured_and_nothing_else_is_touched(precision: str) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert 1e8 < peak_flops(CPU, precision) < 1e15
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
