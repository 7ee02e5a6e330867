"""sqzb export: a model to a folder that a runtime opens, whole and checked, or not at all."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn

from sqzb import __version__, console
from sqzb.data import metrics
from sqzb.data.dataset import DataSet
from sqzb.errors import UserError
from sqzb.export import onnx_graph
from sqzb.export.check import calibration_batches, check_texts, compare
from sqzb.export.folder import (
    MODEL_FILES,
    Check,
    ExportRecord,
    Format,
    Precision,
    Scales,
    is_export,
    write_record,
)
from sqzb.export.heads import CLASSIFIER, ENCODER, MLM, OUTPUTS, TOKENS, Head
from sqzb.export.onnx_scales import calibrate
from sqzb.export.opened import Exported, ExportedClassifier, open_export
from sqzb.export.readme import write_readme
from sqzb.export.runtimes import NAMES, check_installed, check_precision
from sqzb.export.weights import encoder_of
from sqzb.files import check_output_folder, whole_folder, write_json
from sqzb.finetuning.evaluation import measure_splits
from sqzb.finetuning.finetuned import (
    Finetuned,
    data_for,
    longest_input,
    open_finetuned,
    text_columns,
    text_count,
)
from sqzb.model.checkpoint import CONFIG
from sqzb.model.config import model_type
from sqzb.model.open import (
    ModelFolder,
    model_folder,
    open_classifier,
    open_encoder,
    open_squeezebert_mlm,
)
from sqzb.model.transformers_classifier import no_classifier
from sqzb.tokenizer import save_tokenizer
from sqzb.training.run_folder import refuse_used

POINT = 0.01  # a loss of a metric, or the share of an error, that an inexact export may have


class Wanted(NamedTuple):
    """The export that a user asks for.

    source: a run, a saved folder or a Hub id.
    head: None for the model's own.
    output: the folder to write.
    force: whether an inexact export may lose more than a point, or have no metric.
    scales: of the activations in int8.
    """

    source: str
    format: Format
    precision: Precision
    head: Head | None
    output: Path
    force: bool = False
    scales: Scales = "dynamic"


def default_output(
    source: str, format: Format, precision: Precision, scales: Scales = "dynamic"
) -> Path:
    """Return the folder of an export that was given none: exports/NAME-FORMAT-PRECISION."""
    path = Path(source.partition("@")[0])
    name = path.parent.name if path.name == "final" and path.parent.name else path.name
    ending = "-static" if scales == "static" else ""
    return Path("exports") / f"{name or 'model'}-{format}-{precision}{ending}"


def export(wanted: Wanted) -> ExportRecord:
    """Write an export, check it, and print what was written.

    Raises:
        UserError: the model, the format, the precision or the output cannot be used, or the export
            differs too much from the model in torch.
        OSError: the output cannot be written.
    """
    versions = check_installed(wanted.format, writing=True)
    check_precision(wanted.format, wanted.precision)
    refuse_used(wanted.output)
    check_output_folder(wanted.output.parent)
    folder = _squeezebert(wanted.source)
    head = wanted.head or _own_head(folder)
    if head == CLASSIFIER and folder.classifies_tokens:
        head = TOKENS
    is_inexact = wanted.precision != "fp32"
    data, problem = _own_data(wanted.source)
    is_measured = is_inexact and data is not None and head in (CLASSIFIER, TOKENS)
    if is_inexact and not is_measured and not wanted.force:
        raise _unmeasured(wanted, problem)

    model, tokenizer = _open(folder, head)
    record = _record(wanted, folder, head, model, versions)
    with whole_folder(wanted.output) as aside:
        _write(aside, record, model, tokenizer, data)
        write_record(aside, record)
        exported = open_export(aside)
        origin, examples = check_texts(data, record.texts)
        check = compare(model, exported, origin, examples)
        if is_measured and data is not None:
            check = check.model_copy(update={"metrics": _measure(folder, data, exported)})
            _refuse_worse(check, wanted)
        record = record.model_copy(update={"check": check})
        write_record(aside, record)
        write_readme(aside, record)
        written = sum(file.stat().st_size for file in aside.iterdir())
    _report(wanted, record, written)
    return record


def write_unchecked(wanted: Wanted) -> None:
    """Write an export into an empty folder for a measurement: unchecked, and without a README.

    wanted: its `head` is one of the model.

    Raises:
        UserError: the model cannot be used, or its format is not installed.
    """
    versions = check_installed(wanted.format, writing=True)
    folder = _squeezebert(wanted.source)
    head = wanted.head or _own_head(folder)
    model, tokenizer = _open(folder, head)
    record = _record(wanted, folder, head, model, versions)
    _write(wanted.output, record, model, tokenizer, _own_data(wanted.source)[0])
    write_record(wanted.output, record)


def _squeezebert(source: str) -> ModelFolder:
    """Return the folder of a SqueezeBERT.

    Raises:
        UserError: there is no such model, or it is another model or an export.
    """
    if is_export(source):
        raise UserError(f"{source} is an export already. Give the run that it was made from.")
    folder = model_folder(source)
    if not folder.is_squeezebert:
        raise UserError(
            f"{source} is a model of type {model_type(folder.path)}, and sqzb exports SqueezeBERT. "
            "For other models use optimum (optimum-cli export onnx, or openvino) or the exporters "
            "of transformers."
        )
    return folder


def _own_head(folder: ModelFolder) -> Head:
    if folder.has_classifier:
        return CLASSIFIER
    return MLM if folder.has_mlm_head else ENCODER


def _open(folder: ModelFolder, head: Head) -> tuple[nn.Module, Tokenizer]:
    """Open the model in torch with the head, on the CPU."""
    opened: Any
    if head in (CLASSIFIER, TOKENS):
        if not folder.has_classifier:
            raise no_classifier(folder.path)
        opened = open_classifier(folder)
    elif head == MLM:
        opened = open_squeezebert_mlm(folder)
    else:
        opened = open_encoder(folder)
    return opened.model.eval(), opened.tokenizer


def _own_data(source: str) -> tuple[DataSet | None, str]:
    """Return the data set of a finetuned run; without validation data None, and the reason."""
    try:
        data = data_for(source, None, None)
    except UserError as error:
        return None, str(error)
    if not data.validation_splits:
        return None, f"{data.name} has no validation split."
    return data, ""


def _unmeasured(wanted: Wanted, problem: str) -> UserError:
    """Return the error for an inexact export whose loss cannot be measured."""
    return UserError(
        f"{wanted.precision} changes predictions, and there is no validation data of "
        f"{wanted.source} to measure the loss on. Give a finetuned run whose data is there, "
        "--precision fp32, or --force to export without the measurement."
        + (f" The data: {problem}" if problem else "")
    )


def _record(
    wanted: Wanted, folder: ModelFolder, head: Head, model: nn.Module, versions: dict[str, str]
) -> ExportRecord:
    config = encoder_of(model).config
    is_classifier = head in (CLASSIFIER, TOKENS)
    names = getattr(model, "config", config).id2label
    return ExportRecord(
        format=wanted.format,
        precision=wanted.precision,
        head=head,
        source=wanted.source,
        labels=[names[index] for index in range(len(names))] if is_classifier else [],
        max_length=longest_input(folder, config.max_position_embeddings),
        texts=text_count(folder),
        columns=list(text_columns(folder)),
        outputs=list(OUTPUTS[head]),
        scales=wanted.scales if wanted.precision == "int8" else None,
        versions={"sqzb": __version__, "torch": str(torch.__version__), **versions},
        check=Check(texts="", examples=0, shortest=0, longest=0, outputs={}),
    )


def _write(
    folder: Path, record: ExportRecord, model: Any, tokenizer: Tokenizer, data: DataSet | None
) -> None:
    """Write the model for its runtime, its configuration and its tokenizer.

    data: for static scales.
    """
    path = folder / MODEL_FILES[record.format]
    if record.format == "onnx":
        graph = onnx_graph.build(model, record.head, record.precision == "int8")
        if record.scales == "static":
            scales = calibrate(graph, calibration_batches(data, record, tokenizer))
            graph = onnx_graph.build(model, record.head, True, scales)
        onnx_graph.write(graph, path)
    elif record.format == "openvino":
        from sqzb.export import openvino_module

        openvino_module.write(openvino_module.build(model, record.head), path)
    else:
        from sqzb.export import executorch_module

        program = executorch_module.build(model, record.head, record.max_length)
        executorch_module.write(program, path)
    write_json(folder / CONFIG, model.config.to_hf(type(model).__name__))
    save_tokenizer(tokenizer, folder, record.max_length)


def _measure(
    folder: ModelFolder, data: DataSet, exported: Exported
) -> dict[str, tuple[float, float]]:
    """Return the figures on the validation data, of the model in torch and of the export."""
    finetuned = open_finetuned(folder, data)
    encoded = {}
    for split in data.validation_splits:
        encoded[split] = finetuned.encode(data.read(split).examples)

    def figures(model: Finetuned) -> dict[str, float]:
        logits = {split: model.logits(part) for split, part in encoded.items()}
        return measure_splits(data, logits, encoded, model.thresholds)

    before = figures(finetuned)
    after = figures(finetuned._replace(model=ExportedClassifier(exported)))  # type: ignore[arg-type]
    return {name: (before[name], after[name]) for name in before}


def _refuse_worse(check: Check, wanted: Wanted) -> None:
    """Refuse an export that loses more than a point of a metric, unless the user insists."""
    lost = []
    for name, (before, after) in check.metrics.items():
        if name == "score":
            continue
        is_error = name.split("_")[-1] in metrics.LOWER_IS_BETTER
        allowed = POINT * before if is_error else POINT
        loss = after - before if is_error else before - after
        if loss > allowed + 1e-9:
            lost.append(f"{name} {metrics.shown(name, before)} to {metrics.shown(name, after)}")
    if lost and not wanted.force:
        raise UserError(
            f"{wanted.precision} loses more than a point on the validation data: "
            f"{', '.join(lost)}. Nothing was written. Give --precision fp32, or --force to export "
            "it all the same."
        )
    if lost:
        console.warn(f"{wanted.precision} loses more than a point: {', '.join(lost)}.")


def _precision(record: ExportRecord) -> str:
    return record.precision + (f" with {record.scales} scales" if record.scales else "")


def _report(wanted: Wanted, record: ExportRecord, written: int) -> None:
    check = record.check
    rows: list[tuple[str, str]] = [
        ("model", f"{record.head}, {_precision(record)}, for {NAMES[record.format]}"),
        ("size", console.size(written)),
        (
            "checked on",
            f"{check.examples} examples of {check.shortest} to {check.longest} tokens from "
            f"{check.texts}",
        ),
    ]
    for name, of_output in check.outputs.items():
        difference = f"{of_output.largest_difference:.2g} of {of_output.largest_value:.3g}"
        rows.append((f"largest difference of {name}", difference))
    for name, (before, after) in check.metrics.items():
        change = f"{metrics.shown(name, before)} in torch, {metrics.shown(name, after)} exported"
        rows.append((name, change))
    console.out.print(f"Exported {wanted.source} to {wanted.output}:")
    console.facts(rows)
