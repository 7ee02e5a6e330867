"""Exports compute what the model in torch does, whatever its sizes, head and kind of labels."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export_runs import FORMATS, exported, need, own_run
from saved_runs import remember, save_run
from sqzb.errors import UserError
from sqzb.export import check
from sqzb.export.folder import RECORD, Format
from sqzb.export.heads import Head
from sqzb.export.job import Wanted, default_output, export
from sqzb.export.opened import open_export
from sqzb.predict import print_predictions, sentences_table, write_predictions
from sqzb.using import ClassPrediction, LabelsPrediction, NumberPrediction, load

TEXTS = ["the letter", "Water, and a stone bridge over it.", "garden", "", "music " * 40]
KINDS: dict[str, dict[str, Any]] = {
    "classes": {"labels": ("no", "yes", "maybe"), "calibration_temperature": 1.7},
    "number": {"labels": ("score",), "problem_type": "regression"},
    "labels": {
        "labels": ("a", "b", "c"),
        "problem_type": "multi_label_classification",
        "thresholds": [0.3, 0.5, 0.7],
    },
    "tags": {"labels": ("O", "B-X", "I-X"), "tokens": True},
}
# Sizes with unequal groups and each activation, beside the published form.
SIZES: dict[str, dict[str, Any]] = {
    "published": {},
    "unequal": {
        "q_groups": 4,
        "k_groups": 2,
        "v_groups": 2,
        "post_attention_groups": 2,
        "intermediate_groups": 4,
        "output_groups": 1,
        "hidden_act": "gelu_new",
    },
    "dense": {
        **{f"{name}_groups": 1 for name in ("q", "k", "v", "intermediate", "output")},
        "hidden_act": "relu",
    },
}
# Other runtimes take a second for each export, so they have the cases whose graphs differ most.
OTHERS: list[Format] = ["openvino", "executorch"]
OF_KINDS = [("onnx", kind) for kind in KINDS]
OF_KINDS += [(format, kind) for format in OTHERS for kind in ("classes", "tags")]
OF_SIZES = [("onnx", sizes) for sizes in SIZES] + [(format, "unequal") for format in OTHERS]
OF_HEADS: list[tuple[Format, Head | None]] = [("onnx", None), ("onnx", "encoder")]
OF_HEADS += [(format, None) for format in OTHERS] + [(format, "vectors") for format in OTHERS]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check on few texts."""
    monkeypatch.setattr(check, "DOCUMENTED", 32)


@pytest.mark.parametrize(("format", "kind"), OF_KINDS)
def test_an_export_predicts_what_the_model_does(
    format: Format, kind: str, vocabulary: Path, tmp_path: Path
) -> None:
    need(format)
    run = save_run(tmp_path / kind, vocabulary, **KINDS[kind])
    folder = exported(run, format)
    ours, theirs = load(run), load(folder)
    assert theirs.kind == ours.kind
    for before, after in zip(ours.predict(TEXTS), theirs.predict(TEXTS), strict=True):
        if isinstance(before, NumberPrediction):
            assert isinstance(after, NumberPrediction)
            np.testing.assert_allclose(before.value, after.value, atol=1e-4)
        elif isinstance(before, ClassPrediction | LabelsPrediction):
            assert isinstance(after, ClassPrediction | LabelsPrediction)
            expected = list(before.probabilities.values())
            np.testing.assert_allclose(list(after.probabilities.values()), expected, atol=1e-4)
        else:
            assert before == after
    record = json.loads((folder / RECORD).read_text())
    assert record["labels"] == list(KINDS[kind]["labels"])
    assert record["check"]["shortest"] < record["check"]["longest"]


@pytest.mark.parametrize(("format", "sizes"), OF_SIZES)
def test_sizes_of_all_kinds_are_exported(
    format: Format, sizes: str, vocabulary: Path, tmp_path: Path
) -> None:
    need(format)
    run = save_run(tmp_path / sizes, vocabulary, ("a", "b"), **SIZES[sizes])
    exported(run, format)  # which compares the outputs
    assert "openvino_telemetry" not in sys.modules  # it reports over the network


@pytest.mark.parametrize(("format", "head"), OF_HEADS)
def test_a_pretrained_model_has_three_heads(
    format: Format, head: Head | None, vocabulary: Path, tmp_path: Path
) -> None:
    need(format)
    run = save_run(tmp_path / "pretrained", vocabulary)
    folder = exported(run, format, head)
    assert json.loads((folder / RECORD).read_text())["head"] == (head or "mlm")


def test_vectors_are_those_of_embed(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    from sqzb.embed import load_encoder

    run = save_run(tmp_path / "pretrained", vocabulary)
    opened = open_export(exported(run, "onnx", "vectors"))
    for text in TEXTS:
        expected = load_encoder(str(run)).embed([text]).vectors
        tokens = opened.tokenizer.encode(text).ids
        ids = torch.tensor([[*tokens[:31], tokens[-1]] if len(tokens) > 32 else tokens])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch["token_type_ids"] = torch.zeros_like(ids)
        given = opened.run(batch)["sentence_embedding"]
        np.testing.assert_allclose(given, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("format", "kind"),
    [("onnx", "classes"), ("onnx", "mlm"), ("openvino", "tags"), ("executorch", "classes")],
)
def test_the_code_in_the_readme_runs(
    format: Format,
    kind: str,
    vocabulary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need(format)
    folder = exported(save_run(tmp_path / kind, vocabulary, **KINDS.get(kind, {})), format)
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out


def test_predictions_of_tables_have_the_form_of_the_model(
    vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need("onnx")
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    remember(run, "review")
    folder = exported(run, "onnx")
    table = tmp_path / "new.csv"
    table.write_text("id,review\n1,the letter\n2,\n3,a garden\n")
    rows = []
    for path in (run, folder):
        output = tmp_path / f"{path.name}.csv"
        write_predictions(str(path), [str(table)], output, [], "processes")
        rows.append([line.split(",")[:3] for line in output.read_text().splitlines()])
    assert rows[0] == rows[1]
    capsys.readouterr()
    print_predictions(str(folder), sentences_table(["the letter"]), [], as_json=False)
    assert capsys.readouterr().out.split()[0] in ("a", "b")


def test_int8_is_measured_on_the_validation_data(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    run = own_run(tmp_path, vocabulary)
    folder = exported(run, "onnx", precision="int8", force=True)
    record = json.loads((folder / RECORD).read_text())
    assert record["check"]["texts"].startswith("validation data")
    before, after = record["check"]["metrics"]["accuracy"]
    assert 0 <= before <= 1 and 0 <= after <= 1
    full = exported(run, "onnx")
    sizes = [(path / "model.onnx").stat().st_size for path in (folder, full)]
    assert sizes[0] < sizes[1]
    largest = record["check"]["outputs"]["logits"]
    assert largest["largest_difference"] < 0.2 * largest["largest_value"]


def test_data_that_is_gone_is_needed_for_int8_alone(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    run = own_run(tmp_path, vocabulary)
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    record = json.loads((exported(run, "onnx") / RECORD).read_text())
    assert record["check"]["texts"] == "Python's documentation"
    with pytest.raises(UserError, match=r"classes_1\.jsonl"):
        exported(run, "onnx", precision="int8")


def test_int8_that_loses_over_a_point_is_refused(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    run = own_run(tmp_path, vocabulary)
    worse = {"accuracy": (0.9, 0.88), "score": (0.9, 0.88)}
    monkeypatch.setattr("sqzb.export.job._measure", lambda *given: worse)
    with pytest.raises(UserError, match=r"int8 loses more than a point.*90.0% to 88.0%"):
        exported(run, "onnx", precision="int8")
    assert not (tmp_path / "run-onnx-int8-None").exists()


def test_int8_without_validation_data_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    with pytest.raises(UserError, match="no validation data"):
        exported(run, "onnx", precision="int8")


def test_bf16_needs_a_processor_that_has_it(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openvino")
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    monkeypatch.setattr("sqzb.export.runtimes._abilities", lambda: ("FP32",))
    with pytest.raises(UserError, match="This processor has no products in bf16"):
        exported(run, "openvino", precision="bf16", force=True)
    # OpenVINO computes in fp32 where the processor lacks bf16, so this runs anywhere.
    monkeypatch.setattr("sqzb.export.runtimes._abilities", lambda: ("FP32", "BF16"))
    folder = exported(run, "openvino", precision="bf16", force=True)
    assert json.loads((folder / RECORD).read_text())["check"]["tolerance"] is None
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in (folder / "README.md").read_text()


def test_a_graph_that_differs_is_refused(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    monkeypatch.setattr(check, "TOLERANCE", 1e-12)
    with pytest.raises(UserError, match="differs from the model in torch"):
        exported(run, "onnx")
    assert not list(tmp_path.glob("run-onnx*"))


def test_bad_input_is_refused_before_any_work(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    pretrained = save_run(tmp_path / "pretrained", vocabulary)
    with pytest.raises(UserError, match="has no classifier"):
        exported(pretrained, "onnx", "classifier")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="no final/ model yet"):
        exported(unfinished, "onnx")
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"type bert.*optimum"):
        exported(bert, "onnx")
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        export(Wanted(str(pretrained), "onnx", "fp32", None, used))
    with pytest.raises(UserError, match="bf16 is not offered"):
        exported(pretrained, "onnx", precision="bf16")
    folder = exported(pretrained, "onnx", "encoder")
    with pytest.raises(UserError, match="an export already"):
        exported(folder, "onnx")
    with pytest.raises(UserError, match="has no classifier"):
        load(folder)


def test_damaged_exports_are_refused(vocabulary: Path, tmp_path: Path) -> None:
    need("onnx")
    folder = exported(save_run(tmp_path / "run", vocabulary, ("a", "b")), "onnx")
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[: len(model) // 2])
    with pytest.raises(UserError, match="does not open"):
        load(folder)
    for content in ("", "[]", "{}", "[" * 50_000, '{"format": "tflite"}'):
        (folder / RECORD).write_text(content)
        with pytest.raises(UserError, match="does not describe an export"):
            load(folder)


def test_a_missing_runtime_is_named(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxruntime", "openvino", "executorch", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, module, None)
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    for format in FORMATS:
        with pytest.raises(UserError, match=rf"pip install 'sqzb\[{format}\]'"):
            exported(run, format)


def test_the_default_output_has_the_name_of_the_run() -> None:
    assert default_output("runs/reviews", "onnx", "int8") == Path("exports/reviews-onnx-int8")
    assert default_output("runs/a/final", "onnx", "fp32") == Path("exports/a-onnx-fp32")
    assert default_output("org/name@main", "openvino", "fp32") == Path("exports/name-openvino-fp32")
