"""General exports compute what transformers does, at lengths that their example has not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export_runs import need
from small_bert import save_bert
from sqzb.bench.cells import GENERAL, SQZB, Cell, Form
from sqzb.bench.contestants import as_squeezebert
from sqzb.bench.general import open_model, write_general
from sqzb.bench.runtimes import open_cell
from sqzb.export.folder import Format, Precision
from sqzb.export.heads import CLASSIFIER, ENCODER, INPUTS, OUTPUTS, Head
from sqzb.tokenizer import load_tokenizer

pytest.importorskip("transformers")
LENGTH = 11


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this process, which those of a cell would replace."""
    monkeypatch.setattr("sqzb.training.cpu.tune_cpu", lambda: None)


def inputs() -> dict[str, NDArray[np.int64]]:
    ids = np.random.default_rng(0).integers(5, 60, (3, LENGTH))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    return dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def expected(folder: Path, head: Head) -> list[NDArray[np.float32]]:
    tensors = {name: torch.from_numpy(array) for name, array in inputs().items()}
    with torch.no_grad():
        result = open_model(folder, head)(**tensors)
    return [getattr(result, name).numpy() for name in OUTPUTS[head]]


def cell(folder: Path, head: Head, runtime: str, precision: Precision, form: Form) -> Cell:
    return Cell("bert", form, runtime, precision, folder, head, INPUTS, (0,), False)


@pytest.mark.parametrize(
    ("format", "precision", "head"),
    [
        ("onnx", "fp32", CLASSIFIER),
        ("onnx", "int8", ENCODER),
        ("openvino", "fp32", ENCODER),
    ],
)
def test_exports_compute_the_same(
    format: Format, precision: Precision, head: Head, vocabulary: Path, tmp_path: Path
) -> None:
    need(format)
    saved = save_bert(tmp_path / "bert", vocabulary, head)
    folder = tmp_path / "exported"
    folder.mkdir()
    write_general(saved, head, format, precision, folder)
    given = open_cell(cell(folder, head, format, precision, GENERAL))(inputs())
    is_token = inputs()["attention_mask"] == 1
    for before, after in zip(expected(saved, head), given, strict=True):
        if before.ndim == 3:
            before, after = before[is_token], after[is_token]
        if precision == "fp32":
            np.testing.assert_allclose(after, before, atol=1e-4)
        else:
            # Single numbers differ, because processors without VNNI add products in 16 bits.
            assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("form", [GENERAL, SQZB])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_forms_in_torch_compute_the_same(
    form: Form, precision: Precision, vocabulary: Path, tmp_path: Path
) -> None:
    saved = save_bert(tmp_path / "bert", vocabulary, CLASSIFIER)
    folder = saved
    if form == SQZB:
        folder = tmp_path / "converted"
        model = as_squeezebert(open_model(saved, CLASSIFIER), CLASSIFIER)
        model.save_pretrained(folder, load_tokenizer(vocabulary))
    (given,) = open_cell(cell(folder, CLASSIFIER, "torch", precision, form))(inputs())
    (due,) = expected(saved, CLASSIFIER)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, due, atol=1e-5 if precision == "fp32" else 0.3)
