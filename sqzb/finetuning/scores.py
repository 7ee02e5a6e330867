"""The scores of a run's evaluations, from which its best model follows."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from sqzb.model.open import Classifier
from sqzb.training import checkpoints
from sqzb.training.processes import warn
from sqzb.training.run_folder import evaluations

# In the log: the figures are those of final/, which is an earlier step's model, or calibrated.
OF_STEP = "of_step"


class Scores:
    """The score of each evaluation by the number of finished steps.

    The best model is a checkpoint that is never removed. Each checkpoint holds the scores of the
    evaluations before it, so that a resumed run picks the same one, whatever became of the log.
    """

    def __init__(self) -> None:
        self._by_step: dict[int, float] = {}

    def __contains__(self, step: int) -> bool:
        return step in self._by_step

    def record(self, step: int, score: object) -> None:
        """Record the score of an evaluation.

        score: a number, or null in a file, where a score is not finite.
        """
        self._by_step[step] = _comparable(score)

    def best(self, until: int) -> int | None:
        """Return the step of the best score up to `until`, the first of equal ones, or None."""
        return max(
            (step for step in sorted(self._by_step) if step <= until),
            key=self._by_step.__getitem__,
            default=None,
        )

    def since(self, step: int) -> int:
        """Return the number of evaluations after a step."""
        return sum(evaluated > step for evaluated in self._by_step)

    def to_json(self) -> dict[str, float | None]:
        """Return the scores by step; null for a score that is not finite."""
        return {
            str(step): score if math.isfinite(score) else None
            for step, score in self._by_step.items()
        }

    def restore(self, folder: Path, step: int, stored: Mapping[str, Any]) -> None:
        """Restore the scores up to this step from the checkpoint and the log of the run `folder`.

        The log has that of the step itself, which was evaluated after the checkpoint was written,
        and all scores of a checkpoint of an older version.

        stored: of the checkpoint, as `to_json` returned them.
        """
        self._by_step = {}
        for line in evaluations(folder):
            if line["step"] <= step and OF_STEP not in line:
                self.record(line["step"], line["validation_score"])
        for evaluated, score in stored.items():
            self.record(int(evaluated), score)


def load_best(
    scores: Scores, step: int, folder: Path, model: Classifier, accelerator: Accelerator
) -> int:
    """Load the best weights up to `step` into the model, and return their step.

    If the checkpoint in the run `folder` is damaged, the model stays that of `step`.
    """
    best = scores.best(step)
    assert best is not None  # there is one evaluation at least
    if best == step:
        return step

    checkpoint = checkpoints.of_step(folder, best)
    problems = checkpoints.damage(checkpoint)
    if problems:
        warn(
            accelerator,
            f"final/ is the last model, because the best checkpoint {checkpoint} is damaged: "
            f"{', '.join(problems)}.",
        )
        return step
    checkpoints.load_model(checkpoint, model)
    return best


def _comparable(score: object) -> float:
    """Return a score, or minus infinity if it is not finite, so that it is never the best."""
    is_finite = isinstance(score, int | float) and math.isfinite(score)
    return float(score) if is_finite else -math.inf  # type: ignore[arg-type]
