"""The configuration of a SqueezeBERT, with the field names of a Hugging Face config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sqzb.errors import Problem

MODEL_TYPE = "squeezebert"
EXPORT = "export.json"  # describes the model of a runtime, in a folder without weights for torch
# No model comes near these sizes: a larger number is a slip, and would ask for terabytes.
LARGEST_SIZE, MOST_LAYERS = 2**24, 2**10
# The largest published encoders have half of this. More is a wrong digit, or a damaged file.
MOST_PARAMETERS = 20_000_000_000
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size"),
)
MOST_LABELS = 1_000_000
# Fields of the old classifier that a new one does not keep.
OF_LABELS: dict[str, None] = dict.fromkeys(
    ("problem_type", "thresholds", "calibration_temperature", "label_scale")
)


class SqueezeBertConfig(BaseModel):
    """The sizes of a model; defaults are the published ones (Iandola et al. 2020).

    The published model has BERT-base's shape with four groups. `embedding_size` is not a field,
    because it always equals `hidden_size`, as in the published implementation.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    vocab_size: int = Field(
        30522,
        ge=6,
        le=LARGEST_SIZE,
        description="entries of the vocabulary; pretrain takes the corpus's",
    )
    hidden_size: int = Field(768, ge=1, le=LARGEST_SIZE, description="width of the model")
    num_hidden_layers: int = Field(12, ge=1, le=MOST_LAYERS, description="number of layers")
    num_attention_heads: int = Field(
        12, ge=1, description="attention heads in a layer; divides hidden_size"
    )
    intermediate_size: int = Field(
        3072, ge=1, le=LARGEST_SIZE, description="width inside the feed-forward part"
    )
    hidden_act: Literal["gelu", "gelu_new", "relu"] = Field(
        "gelu", description="activation function"
    )
    hidden_dropout_prob: float = Field(
        0.1, ge=0, lt=1, description="dropout of embeddings and layer outputs"
    )
    attention_probs_dropout_prob: float = Field(
        0.1, ge=0, lt=1, description="dropout of attention weights"
    )
    max_position_embeddings: int = Field(
        512, ge=4, le=LARGEST_SIZE, description="longest sequence that the model can read"
    )
    type_vocab_size: int = Field(2, ge=2, le=LARGEST_SIZE, description="number of segments")
    initializer_range: float = Field(
        0.02, gt=0, description="standard deviation of the initial weights"
    )
    layer_norm_eps: float = Field(
        1e-12, gt=0, lt=1, description="added to the variance in layer norms"
    )
    pad_token_id: int = Field(0, ge=0, description="number of the padding token")
    q_groups: int = Field(4, ge=1, description="groups of the query projection")
    k_groups: int = Field(4, ge=1, description="groups of the key projection")
    v_groups: int = Field(4, ge=1, description="groups of the value projection")
    post_attention_groups: int = Field(
        1, ge=1, description="groups of the projection behind attention"
    )
    intermediate_groups: int = Field(
        4, ge=1, description="groups of the first feed-forward projection"
    )
    output_groups: int = Field(4, ge=1, description="groups of the second feed-forward projection")
    id2label: dict[int, str] = Field(
        {0: "LABEL_0", 1: "LABEL_1"},
        min_length=1,
        description="names of the classes by number, for finetuning",
    )
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    ) = Field(None, description="kind of the finetuned task, for transformers")
    thresholds: list[float] | None = Field(
        None,
        description="of several labels an example: the probability from which each label holds; "
        "null: 0.5",
    )
    # Not `temperature`: transformers takes that for a setting of text generation, and drops it.
    calibration_temperature: float | None = Field(
        None, gt=0, description="logits over it give calibrated probabilities; null: 1"
    )
    label_scale: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="mean and standard deviation of the numbers that a regression in training "
        "learns; null: it gives the numbers themselves",
    )

    @property
    def num_labels(self) -> int:
        """Number of labels of the classifier."""
        return len(self.id2label)

    def problems(self) -> list[Problem]:
        """Return combinations of values that no model can have; empty if there is none."""
        problems: list[Problem] = []
        groups = [
            f"{layer}_groups"
            for layer in ("q", "k", "v", "post_attention", "intermediate", "output")
        ]
        for size, divisor in [
            ("hidden_size", "num_attention_heads"),
            *(("hidden_size", name) for name in groups),
            ("intermediate_size", "intermediate_groups"),
            ("intermediate_size", "output_groups"),
        ]:
            width, parts = getattr(self, size), getattr(self, divisor)
            if width % parts:
                problems.append((divisor, f"{parts} does not divide {size} = {width}"))
        if self.about_parameters() > MOST_PARAMETERS:
            fields = type(self).model_fields
            largest = max(SIZES, key=lambda size: getattr(self, size) / fields[size].default)
            problems.append((largest, f"{getattr(self, largest)} makes a model that is too large"))
        if self.pad_token_id >= self.vocab_size:
            problems.append(
                (
                    "pad_token_id",
                    f"{self.pad_token_id} is outside the vocabulary of {self.vocab_size}",
                )
            )
        if sorted(self.id2label) != list(range(self.num_labels)):
            problems.append(
                ("id2label", f"{self.id2label} does not number its labels 0, 1, 2 without a gap")
            )
        one_label = {"regression": True, "single_label_classification": False}
        if one_label.get(str(self.problem_type), self.num_labels == 1) != (self.num_labels == 1):
            problems.append(
                ("problem_type", f"{self.problem_type} does not go with {self.num_labels} labels")
            )
        if self.thresholds is not None:
            problem = self._problem_of_thresholds(self.thresholds)
            if problem is not None:
                problems.append(("thresholds", problem))
        return problems

    def about_parameters(self) -> int:
        """Return the number of parameters without groups, biases and heads."""
        width = self.hidden_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = 4 * width * width + 2 * width * self.intermediate_size
        return rows * width + self.num_hidden_layers * layer

    def _problem_of_thresholds(self, thresholds: list[float]) -> str | None:
        if self.problem_type != "multi_label_classification":
            return f"{thresholds} go with the problem_type multi_label_classification alone"
        if len(thresholds) != self.num_labels:
            return f"{thresholds} are {len(thresholds)} for {self.num_labels} labels"
        outside = [value for value in thresholds if not 0 < value < 1]
        return f"{thresholds} has {outside[0]}, which is not between 0 and 1" if outside else None

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "SqueezeBertConfig":
        """Read the dictionary of a config.json; keys of other tools are ignored.

        Raises:
            ValueError: it is not a SqueezeBERT's, or has a value that this model cannot have.
        """
        if values.get("model_type") != MODEL_TYPE:
            raise ValueError(f"model_type is {values.get('model_type')!r}, not {MODEL_TYPE!r}")
        known = {
            key: value
            for key, value in values.items()
            if key in cls.model_fields and value is not None
        }
        if "id2label" in known:
            known["id2label"] = _labels(known["id2label"])
        elif isinstance(values.get("num_labels"), int):
            if values["num_labels"] > MOST_LABELS:
                raise ValueError(f"num_labels is {values['num_labels']}, over {MOST_LABELS:,}")
            known["id2label"] = {index: f"LABEL_{index}" for index in range(values["num_labels"])}
        try:
            config = cls(**known)
        except ValidationError as error:
            raise ValueError("; ".join(_explain(detail) for detail in error.errors())) from None
        problems = [f"{key}: {problem}" for key, problem in config.problems()]
        if values.get("embedding_size", config.hidden_size) != config.hidden_size:
            problems.append(f"embedding_size: {values['embedding_size']} differs from hidden_size")
        if values.get("tie_word_embeddings") is False:
            problems.append(
                "tie_word_embeddings: this model always predicts with its embedding matrix"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return config

    def to_hf(self, architecture: str) -> dict[str, Any]:
        """Return the dictionary of a config.json that transformers reads as this model.

        architecture: the class of transformers that opens it.
        """
        return {
            "architectures": [architecture],
            "model_type": MODEL_TYPE,
            **self.model_dump(exclude_none=True),
            "id2label": {str(index): label for index, label in self.id2label.items()},
            "label2id": {label: index for index, label in self.id2label.items()},
            "embedding_size": self.hidden_size,
        }


def model_type(folder: Path) -> str | None:
    """Return the type of the model in `folder` by its config.json; None if it cannot be read."""
    name = _values(folder).get("model_type")
    return name if isinstance(name, str) else None


def label_count(folder: Path) -> int:
    """Return the `num_labels` in `folder`'s config.json; 0 if there is no such number."""
    count = _values(folder).get("num_labels")
    return count if isinstance(count, int) else 0


def architectures(folder: Path) -> list[str]:
    """Return the classes that open the folder by its config.json; none if it cannot be read."""
    names = _values(folder).get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _values(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _labels(id2label: Any) -> Any:
    """Return the labels with integer keys, which JSON stores as text.

    Values that are not such a dictionary are returned unchanged, for the validation to report.
    """
    if not isinstance(id2label, Mapping):
        return id2label
    return {
        int(key) if str(key).isdecimal() else key: str(label) for key, label in id2label.items()
    }


def _explain(detail: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    return f"{key}: {detail['msg'].removeprefix('Input ')}, not {detail['input']!r:.100}"
