"""What is fitted after training, over all validation splits together."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sqzb.data.dataset import Classes, Labels, Number, Tags
from sqzb.data.metrics.calibration import best_threshold, fit_temperature, sigmoid
from sqzb.finetuning.calibration import Calibration, calibrate, calibration_errors
from sqzb.finetuning.encode import Encoded

SPLITS = ("validation_one", "validation_two")


def drawn(examples: int, outputs: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, (examples, outputs)).astype(np.float32)


def test_the_temperature_is_of_all_splits() -> None:
    logits = {split: drawn(50, 3, seed) for seed, split in enumerate(SPLITS)}
    labels = {split: drawn(50, 3, seed + 9).argmax(1) for seed, split in enumerate(SPLITS)}
    encoded = {split: Encoded([], [], labels[split], 0) for split in SPLITS}
    found = calibrate(Classes(("a", "b", "c")), logits, encoded)
    due = fit_temperature(np.concatenate([*logits.values()]), np.concatenate([*labels.values()]))
    assert found == Calibration(temperature=due)
    errors = calibration_errors(found, logits, encoded)
    assert 0 <= errors["ece_calibrated"] < errors["ece"] <= 1
    assert found.changes_figures(shows_errors=True)
    assert not found.changes_figures(shows_errors=False)


@pytest.mark.parametrize("n", [1, 2, 99, 100])
def test_a_temperature_needs_a_hundred_examples(n: int) -> None:
    logits = {"validation": drawn(n, 3, 0)}
    labels = {"validation": Encoded([], [], drawn(n, 3, 1).argmax(1), 0)}
    found = calibrate(Classes(("a", "b", "c")), logits, labels)
    assert (found.temperature is None) == (n < 100)
    assert bool(calibration_errors(found, logits, labels)) == (n >= 100)


def test_each_label_has_a_threshold_of_its_own() -> None:
    logits = {"validation": drawn(50, 2, 0)}
    labels = (logits["validation"] > [1.0, -2.0]).astype(np.float32)
    found = calibrate(Labels(("x", "y")), logits, {"validation": Encoded([], [], labels, 0)})
    probabilities = sigmoid(logits["validation"])
    assert found.thresholds == [
        best_threshold(probabilities[:, column], labels[:, column]) for column in range(2)
    ]
    assert found.fields == {"calibration_temperature": None, "thresholds": found.thresholds}
    assert calibration_errors(found, logits, {}) == {}


@pytest.mark.parametrize("kind", [Number(0, 1), Tags(("O", "B-X"))])
def test_other_kinds_have_nothing_to_fit(kind: Number | Tags) -> None:
    assert calibrate(kind, {}, {}) == Calibration()


def test_without_validation_there_is_nothing_to_fit() -> None:
    assert calibrate(Classes(("a", "b")), {}, {}) == Calibration()


@pytest.mark.parametrize("kind", [Classes(("a", "b")), Labels(("a", "b"))])
def test_a_model_that_diverged_has_nothing_to_fit(kind: Classes | Labels) -> None:
    logits = {"validation": np.full((2, 2), np.nan, np.float32)}
    labels = np.array([0, 1]) if isinstance(kind, Classes) else np.eye(2, dtype=np.float32)
    assert calibrate(kind, logits, {"validation": Encoded([], [], labels, 0)}) == Calibration()
