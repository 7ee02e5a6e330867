"""The folder of an export: export.json, which describes it, and the model's other files."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sqzb.errors import UserError
from sqzb.export.heads import Head
from sqzb.files import read_json_object, write_json
from sqzb.model.config import EXPORT

Format = Literal["onnx", "openvino", "executorch"]
Precision = Literal["fp32", "bf16", "int8"]
Scales = Literal["dynamic", "static"]

RECORD = EXPORT
MODEL_FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "executorch": "model.pte",
}


class Difference(BaseModel):
    """The comparison of an output with the model in torch.

    largest_difference: absolute, over all compared numbers.
    largest_value: the largest absolute number of the model in torch.
    """

    model_config = ConfigDict(strict=True)

    largest_difference: float
    largest_value: float


class Check(BaseModel):
    """The comparison of an export with the model in torch, on texts of mixed lengths.

    texts: origin of the texts.
    shortest, longest: tokens of an example.
    outputs: the comparison of each output by its name.
    tolerance: of `largest_difference` over the larger of 1 and `largest_value`; None: no limit.
    metrics: figures on the validation data by name, of the model in torch and of the export.
    """

    model_config = ConfigDict(strict=True)

    texts: str
    examples: int
    shortest: int
    longest: int
    outputs: dict[str, Difference]
    tolerance: float | None = None
    metrics: dict[str, tuple[float, float]] = Field(default_factory=dict)


class ExportRecord(BaseModel):
    """The content of export.json.

    source: the run, folder or Hub id that was exported.
    labels: names of the classifier's outputs, in order; empty without a classifier.
    max_length: tokens to which texts are cut.
    texts: texts of an example; None if it is not known.
    columns: of the texts in the training data.
    outputs: names of the model's outputs.
    scales: of the activations in int8; None in other precisions.
    versions: of the libraries that made the export.
    """

    model_config = ConfigDict(strict=True)

    format: Format
    precision: Precision
    head: Head
    source: str
    labels: list[str]
    max_length: int = Field(ge=1)
    texts: int | None
    columns: list[str]
    outputs: list[str]
    scales: Scales | None = None
    versions: dict[str, str]
    check: Check


def is_export(path: str | Path) -> bool:
    """Return whether the path is the folder of an export."""
    return (Path(path) / RECORD).is_file()


def write_record(folder: Path, record: ExportRecord) -> None:
    """Write export.json."""
    write_json(folder / RECORD, record.model_dump())


def read_record(folder: Path) -> ExportRecord:
    """Read export.json.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RECORD
    try:
        read_json_object(path)
        return ExportRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise UserError(
        f"{path} does not describe an export ({problem}). Export the model again: sqzb export RUN"
    )
