"""Settings fitted on validation after training, saved in config.json: temperature or thresholds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.data.dataset import Classes, Kind, Labels
from sqzb.data.metrics.calibration import (
    best_threshold,
    expected_calibration_error,
    fit_temperature,
    sigmoid,
    softmax,
)
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.evaluation import Logits

LEAST_EXAMPLES = 100  # to fit a temperature on
ECE, ECE_CALIBRATED = "ece", "ece_calibrated"


class Calibration(NamedTuple):
    """Settings of a finished model beside its weights.

    temperature: of the classes of a text; logits divided by it give calibrated probabilities.
    thresholds: of several labels; the probability from which each label holds.
    """

    temperature: float | None = None
    thresholds: list[float] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the model's configuration."""
        return {"calibration_temperature": self.temperature, "thresholds": self.thresholds}

    def changes_figures(self, shows_errors: bool) -> bool:
        """Return whether the finished model's figures are others than its last evaluation's.

        shows_errors: whether the calibration errors are among them.
        """
        return self.thresholds is not None or (shows_errors and self.temperature is not None)


def calibrate(
    kind: Kind, logits: Mapping[str, Logits], validation: Mapping[str, Encoded]
) -> Calibration:
    """Fit the settings that this kind of label has, on all validation examples together.

    A temperature is fitted on LEAST_EXAMPLES or more.

    logits, validation: by split.
    """
    if not isinstance(kind, Classes | Labels) or not validation:
        return Calibration()
    all_logits, labels = _all(logits, validation)
    if not np.isfinite(all_logits).all():
        return Calibration()  # of a model that has diverged
    if too_few_to_calibrate(kind, validation):
        return Calibration()
    if isinstance(kind, Classes):
        return Calibration(temperature=fit_temperature(all_logits, labels))
    probabilities = sigmoid(all_logits)
    columns = zip(probabilities.T, labels.T, strict=True)
    return Calibration(thresholds=[_inside(best_threshold(*column)) for column in columns])


def too_few_to_calibrate(kind: Kind, validation: Mapping[str, Encoded]) -> bool:
    """Return whether a temperature of classes would be that of a few examples by chance."""
    n = sum(len(split.labels) for split in validation.values())
    return isinstance(kind, Classes) and n < LEAST_EXAMPLES


def calibration_errors(
    calibration: Calibration, logits: Mapping[str, Logits], validation: Mapping[str, Encoded]
) -> dict[str, float]:
    """Return the expected calibration error of classes before and after the temperature.

    It is measured on the examples that the temperature was fitted on. Other kinds have none.
    """
    if calibration.temperature is None:
        return {}
    all_logits, labels = _all(logits, validation)
    return {
        ECE: expected_calibration_error(softmax(all_logits), labels),
        ECE_CALIBRATED: expected_calibration_error(
            softmax(all_logits, calibration.temperature), labels
        ),
    }


def _all(
    logits: Mapping[str, Logits], validation: Mapping[str, Encoded]
) -> tuple[Logits, NDArray[Any]]:
    splits = list(validation)
    return (
        np.concatenate([logits[split] for split in splits]),
        np.concatenate([validation[split].labels for split in splits]),
    )


def _inside(threshold: float) -> float:
    """Limit a threshold to values that config.json allows, if all probabilities are 0 or 1."""
    return min(max(threshold, 1e-6), 1 - 1e-6)
