"""Models as everybody runs and exports them: transformers' modules, and the general exporters."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqzb import __version__
from sqzb.export.folder import MODEL_FILES, Check, ExportRecord, Format, Precision, write_record
from sqzb.export.heads import CLASSIFIER, ENCODER, INPUTS, OUTPUTS, TOKENS, Head
from sqzb.export.runtimes import quiet, without_reports
from sqzb.model.transformers_classifier import LOCAL, quiet_transformers

AUTO: dict[Head, str] = {
    CLASSIFIER: "AutoModelForSequenceClassification",
    TOKENS: "AutoModelForTokenClassification",
    ENCODER: "AutoModel",
}
OPSET = 17


def open_model(folder: Path, head: Head) -> Any:
    """Open a saved model as a PreTrainedModel of transformers in fp32."""
    with quiet_transformers(folder) as transformers:
        auto = getattr(transformers, AUTO[head])
        return auto.from_pretrained(folder, dtype=torch.float32, **LOCAL).eval()


def inputs_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's inputs."""
    taken = inspect.signature(model.forward).parameters
    return tuple(name for name in INPUTS if name in taken)


def count_flops(folder: Path, head: Head, batch: int, length: int) -> int:
    """Count the floating-point operations of the products of a forward, without weights."""
    from torch.utils.flop_counter import FlopCounterMode

    with quiet_transformers(folder) as transformers, torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        # The counter does not know all forms of fused attention.
        config._attn_implementation = "eager"
        model = getattr(transformers, AUTO[head]).from_config(config, trust_remote_code=False)
        ids = torch.zeros(batch, length, dtype=torch.int64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(input_ids=ids)
    return int(counter.get_total_flops())


class Positional(nn.Module):
    """A model of transformers whose inputs and outputs have an order, as exporters need it."""

    def __init__(self, model: Any, head: Head) -> None:
        super().__init__()
        self.model = model
        self.names = inputs_of(model)
        self.head = head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `OUTPUTS`."""
        result = self.model(**dict(zip(self.names, inputs, strict=True)))
        return tuple(getattr(result, name) for name in OUTPUTS[self.head])


def _write_onnx(model: Positional, precision: Precision, path: Path) -> None:
    """Write the model by torch.onnx.export; int8 by ONNX Runtime's dynamic quantisation."""
    axes: dict[str, dict[int, str]] = {}
    for name in model.names:
        axes[name] = {0: "batch", 1: "length"}
    for name, of_output in OUTPUTS[model.head].items():
        axes[name] = dict(enumerate(of_output))
    full = path.with_name("full.onnx") if precision == "int8" else path
    torch.onnx.export(
        model,
        _example(model),
        str(full),
        input_names=list(model.names),
        output_names=list(OUTPUTS[model.head]),
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,  # the newer exporter needs a further package
    )
    if precision == "int8":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(full, path)
        full.unlink()


def _write_openvino(model: Positional, precision: Precision, path: Path) -> None:
    """Write the model by openvino.convert_model; the precision is chosen when it is opened."""
    with without_reports():
        import openvino

        converted = openvino.convert_model(model, example_input=_example(model))
    for output, name in zip(converted.outputs, OUTPUTS[model.head], strict=True):
        output.get_tensor().set_names({name})
    for given, name in zip(converted.inputs, model.names, strict=True):
        given.get_tensor().set_names({name})
    openvino.save_model(converted, path, compress_to_fp16=False)


def _example(model: Positional) -> tuple[Tensor, ...]:
    ids = torch.ones(2, 7, dtype=torch.int64)
    return tuple(torch.zeros_like(ids) if name == INPUTS[2] else ids for name in model.names)


# A new format whose general exporter takes models of transformers gets a line here.
EXPORTERS: dict[Format, Callable[[Positional, Precision, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def write_general(
    source: Path, head: Head, format: Format, precision: Precision, folder: Path
) -> None:
    """Export a saved model by the format's general exporter, as a folder that sqzb opens.

    source: the folder of the saved model.
    """
    model = Positional(open_model(source, head), head)
    with torch.no_grad(), quiet():
        EXPORTERS[format](model, precision, folder / MODEL_FILES[format])
    record = ExportRecord(
        format=format,
        precision=precision,
        head=head,
        source=str(source),
        labels=[],
        max_length=1,
        texts=None,
        columns=[],
        outputs=list(OUTPUTS[head]),
        versions={"sqzb": __version__},
        check=Check(texts="", examples=0, shortest=0, longest=0, outputs={}),
    )
    write_record(folder, record)
