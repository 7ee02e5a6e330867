"""GLUE's average of a model's scores."""

from collections.abc import Mapping

from sqzb.glue.tasks import NINE


def average(scores: Mapping[tuple[str, str], float], wnli: bool) -> float:
    """Return GLUE's average: the mean score over its nine tasks, or eight without WNLI.

    scores: by task and split. A task with several splits (MNLI's two halves) counts once, with
    their mean. AX is not part of GLUE's average.

    Raises:
        ValueError: the score of a task is missing, so that the mean could not be compared with
            others.
    """
    counted = [name for name in NINE if wnli or name != "wnli"]
    splits: dict[str, list[float]] = {name: [] for name in counted}
    for (task, _), score in scores.items():
        if task in splits:
            splits[task].append(score)
    missing = [name for name in counted if not splits[name]]
    if missing:
        raise ValueError(
            f"GLUE's average needs a score of every task; there is none of {', '.join(missing)}"
        )
    return sum(sum(values) / len(values) for values in splits.values()) / len(counted)
