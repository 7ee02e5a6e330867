"""Static scales cover the calibrated numbers, and leave a text alone with its own result."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from export_runs import exported, need, own_run
from sqzb.cli import app
from sqzb.export import check
from sqzb.export.folder import RECORD, Scales
from sqzb.export.job import Wanted, default_output, export
from sqzb.export.onnx_scales import calibrate
from sqzb.export.opened import open_export


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate on few texts."""
    need("onnx")
    monkeypatch.setattr(check, "CALIBRATION", 8)


def test_a_scale_covers_all_numbers_of_the_batches() -> None:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Neg", ["x"], ["negative"])]
    nodes += [helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"])]
    nodes += [helper.make_node("DynamicQuantizeLinear", ["negative"], ["d", "e", "f"])]
    given = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [None])]
    result = [helper.make_tensor_value_info("a", TensorProto.UINT8, [None])]
    proto = helper.make_model(
        helper.make_graph(nodes, "two", given, result),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    batches = [{"input_ids": np.array(numbers)} for numbers in ([-3, 1], [0, 7], [2, -10])]
    first, second = calibrate(proto, batches)
    for scale, low, high in ((first, -10, 7), (second, -7, 10)):
        assert (0 - scale.zero) * scale.scale == pytest.approx(low, abs=scale.scale)
        assert (255 - scale.zero) * scale.scale == pytest.approx(high, abs=scale.scale)
    assert len(proto.graph.output) == 1  # the given graph stays as it is


def run_of(folder: Path, batch: list[list[int]]) -> NDArray[np.float32]:
    ids = torch.tensor(batch)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return open_export(folder).run(inputs | {"token_type_ids": torch.zeros_like(ids)})["logits"]


def test_a_static_result_is_independent_of_the_batch(vocabulary: Path, tmp_path: Path) -> None:
    run = own_run(tmp_path, vocabulary)
    kinds: list[Scales] = ["dynamic", "static"]
    differences = []
    for scales in kinds:
        folder = tmp_path / scales
        record = export(Wanted(str(run), "onnx", "int8", None, folder, True, scales))
        assert record.scales == scales
        assert json.loads((folder / RECORD).read_text())["scales"] == scales
        largest = record.check.outputs["logits"]
        assert largest.largest_difference < 0.2 * largest.largest_value
        texts = [[2, 20 + row, 50 - row, 30, 3] for row in range(4)]
        alone = np.concatenate([run_of(folder, [text]) for text in texts])
        differences.append(np.abs(run_of(folder, texts) - alone).max())
    assert differences[1] < 1e-5 < differences[0]


def test_scales_are_those_of_int8(vocabulary: Path, tmp_path: Path) -> None:
    run = own_run(tmp_path, vocabulary)
    assert json.loads((exported(run, "onnx") / RECORD).read_text())["scales"] is None
    ended = CliRunner().invoke(app, ["export", str(run), "--format", "onnx", "--scales", "static"])
    assert ended.exit_code == 2 and "--precision int8" in ended.output
    named = default_output("runs/reviews", "onnx", "int8", "static")
    assert named == Path("exports/reviews-onnx-int8-static")
