"""A runtime or a precision that is missing here is named before any measurement."""

import sys
from pathlib import Path

import pytest

from sqzb.bench import report, runtimes
from sqzb.bench.latency import bench
from sqzb.bench.results import Wanted
from sqzb.bench.runtimes import COMPILED, EAGER, OFFERED, check_cpu, check_runtime
from sqzb.errors import UserError
from sqzb.export.runtimes import PRECISIONS


def test_each_format_of_export_is_a_runtime() -> None:
    assert set(OFFERED) == {EAGER, COMPILED, *PRECISIONS}
    assert all("fp32" in precisions for precisions in OFFERED.values())


@pytest.mark.parametrize("runtime", OFFERED)
def test_bf16_needs_a_processor_that_has_it(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "cpu_flags", lambda: ["avx2"])
    with pytest.raises(UserError, match="This processor has no products in bf16"):
        check_cpu(runtime, "bf16")
    check_cpu(EAGER, "fp32")


def test_a_compiler_is_needed_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="neither g"):
        check_runtime(COMPILED)
    check_runtime(EAGER)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'sqzb\[onnx\]'"):
        bench(Wanted("run", runtimes=["onnx"]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"runtimes": ["onxx"]}, "--runtimes onxx: there is no such name"),
        ({"precisions": ["fp8"]}, "--precisions fp8: there is no such name"),
        ({"runtimes": ["torch"], "precisions": ["int8"]}, "none of the runtimes torch has it"),
        ({"threads": 4096}, "--threads is 4096"),
        ({"path": "nowhere", "runtimes": ["torch"]}, "no folder nowhere"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        bench(Wanted("run")._replace(**changes))  # type: ignore[arg-type]


def test_flags_are_those_of_x86_or_aarch64(monkeypatch: pytest.MonkeyPatch) -> None:
    for line, expected in (
        ("flags\t\t: fpu avx2 avx512_bf16 amx_int8", ["avx2", "avx512_bf16", "amx_int8"]),
        ("Features\t: fp asimddp i8mm", ["asimddp", "i8mm"]),
        ("model name: x", []),
    ):
        monkeypatch.setattr(report, "_cpuinfo", lambda line=line: [line])
        assert report.cpu_flags() == expected
