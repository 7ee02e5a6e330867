"""The README.md of an export, with code that runs it without sqzb."""

from pathlib import Path

from sqzb import __version__
from sqzb.export.folder import ExportRecord
from sqzb.export.heads import CLASSIFIER, MLM, TOKENS
from sqzb.export.runtimes import NAMES
from sqzb.files import whole_file
from sqzb.tokenizer import PAD, load_tokenizer, special_ids

_ONNX = """\
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, inputs)"""
_OPENVINO = """\
settings = {{"INFERENCE_PRECISION_HINT": "{precision}"}}  # else the processor's choice
session = openvino.compile_model("model.xml", "CPU", settings)
outputs = list(session(inputs).values())"""
_CODE = """\
import numpy as np
import {module}
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding(pad_id={pad_id}, pad_token="{pad}")
batch = tokenizer.encode_batch({texts})
inputs = {{
    "input_ids": np.array([text.ids for text in batch]),
    "attention_mask": np.array([text.attention_mask for text in batch]),
    "token_type_ids": np.array([text.type_ids for text in batch]),
}}
{session}
{closing}"""


def write_readme(folder: Path, record: ExportRecord) -> None:
    """Write README.md: the outputs, the check, and code that runs in the folder."""
    shapes = {"logits": "(texts, labels)"}
    if record.head in (TOKENS, MLM):
        shapes["logits"] = f"(texts, tokens, {'tags' if record.head == TOKENS else 'vocabulary'})"
    outputs = []
    for name in record.outputs:
        outputs.append(f"- `{name}`, float32 {shapes.get(name, '')}".rstrip(" "))
    lines = [
        f"# {record.source} for {NAMES[record.format]}",
        f"A SqueezeBERT with the head `{record.head}` in {record.precision}, exported by sqzb "
        f"{__version__}. Inputs are int64 (texts, tokens) of any size up to "
        f"{record.max_length} tokens, to which this model's texts are cut. Outputs:",
        "\n".join(outputs),
        *([f"Labels, in order: {_named(record.labels)}."] if record.labels else []),
        "## Use",
        f"In this folder, with `pip install {_packages(record)}`:",
        f"```python\n{code(folder, record)}\n```",
        *_with_sqzb(record),
        "## Check",
        "The outputs were compared with those of the model in torch; `export.json` has all "
        "figures.",
        _table(record),
    ]
    with whole_file(folder / "README.md") as aside:
        aside.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def code(folder: Path, record: ExportRecord) -> str:
    """Return code that runs the export in its folder without sqzb, and prints its outputs."""
    if record.format == "onnx":
        session, module = _ONNX, "onnxruntime"
    else:
        precision = "bf16" if record.precision == "bf16" else "f32"
        session, module = _OPENVINO.format(precision=precision), "openvino"
    texts = '["A fine film.", "Dull."]'
    if record.texts == 2:
        texts = '[("A fine film.", "I liked it."), ("Dull.", "It was long.")]'
    closing = "print(outputs[0].shape)"
    if record.head in (CLASSIFIER, TOKENS) and len(record.labels) > 1:
        closing = f"labels = {record.labels!r}\nprint(outputs[0].argmax(-1), labels)"
    elif record.head == CLASSIFIER:
        closing = "print(outputs[0][:, 0])"
    return _CODE.format(
        module=module,
        max_length=record.max_length,
        pad_id=special_ids(load_tokenizer(folder)).pad,
        pad=PAD,
        texts=texts,
        session=session,
        closing=closing,
    )


def _packages(record: ExportRecord) -> str:
    return f"{'onnxruntime' if record.format == 'onnx' else 'openvino'} tokenizers numpy"


def _with_sqzb(record: ExportRecord) -> list[str]:
    if record.head not in (CLASSIFIER, TOKENS):
        return []
    return [
        "Or with sqzb, which also applies the temperature and the thresholds of training:",
        "```sh\nsqzb predict . --file new.csv --output predicted.csv\n```",
    ]


def _named(labels: list[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _table(record: ExportRecord) -> str:
    rows = ["| Output | Largest difference | Largest value |", "|---|---|---|"]
    for name, of_output in record.check.outputs.items():
        rows.append(
            f"| {name} | {of_output.largest_difference:.2g} | {of_output.largest_value:.3g} |"
        )
    if record.check.metrics:
        rows += ["", "| Validation data | torch | export |", "|---|---|---|"]
    for name, (before, after) in record.check.metrics.items():
        rows.append(f"| {name} | {before:.4f} | {after:.4f} |")
    return "\n".join(rows)
