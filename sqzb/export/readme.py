"""The README.md of an export, with code that runs it without sqzb."""

from pathlib import Path

from sqzb import __version__
from sqzb.export.folder import ExportRecord
from sqzb.export.heads import CLASSIFIER, MLM, TOKENS
from sqzb.export.runtimes import NAMES, RUNNER
from sqzb.files import whole_file
from sqzb.tokenizer import PAD, load_tokenizer, special_ids

_ONNX = """\
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, inputs)"""
_OPENVINO = """\
settings = {{"INFERENCE_PRECISION_HINT": "{precision}"}}  # else the processor's choice
session = openvino.compile_model("model.xml", "CPU", settings)
outputs = list(session(inputs).values())"""
_EXECUTORCH = """\
program = Runtime.get().load_program("model.pte")
texts = []
for row in zip(*(torch.from_numpy(array).split(1) for array in inputs.values())):
    texts.append(program.load_method("forward").execute(list(row)))  # one text a call
outputs = [torch.cat(output).numpy() for output in zip(*texts)]"""
_CODE = """\
import numpy as np
{imports}
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
    texts = "1" if record.format == "executorch" else "texts"
    outputs = []
    for name in record.outputs:
        outputs.append(f"- `{name}`, float32 {shapes.get(name, '')}".rstrip(" "))
    lines = [
        f"# {record.source} for {NAMES[record.format]}",
        f"A SqueezeBERT with the head `{record.head}` in {record.precision}, exported by sqzb "
        f"{__version__}. Inputs are int64 ({texts}, tokens) of any size up to "
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
        session, imports = _ONNX, "import onnxruntime"
    elif record.format == "openvino":
        precision = "bf16" if record.precision == "bf16" else "f32"
        session, imports = _OPENVINO.format(precision=precision), "import openvino"
    else:
        session = _EXECUTORCH
        imports = "import torch\nfrom executorch.runtime import Runtime"
    texts = '["A fine film.", "Dull."]'
    if record.texts == 2:
        texts = '[("A fine film.", "I liked it."), ("Dull.", "It was long.")]'
    closing = "print(outputs[0].shape)"
    if record.head in (CLASSIFIER, TOKENS) and len(record.labels) > 1:
        closing = f"labels = {record.labels!r}\nprint(outputs[0].argmax(-1), labels)"
    elif record.head == CLASSIFIER:
        closing = "print(outputs[0][:, 0])"
    return _CODE.format(
        imports=imports,
        max_length=record.max_length,
        pad_id=special_ids(load_tokenizer(folder)).pad,
        pad=PAD,
        texts=texts,
        session=session,
        closing=closing,
    )


def _packages(record: ExportRecord) -> str:
    runtime = RUNNER[record.format].partition(".")[0]
    return f"{runtime} tokenizers numpy" + (" torch" if record.format == "executorch" else "")


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
