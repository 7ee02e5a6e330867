"""GLUE's one number for a model."""

from collections.abc import Mapping

from sqzb.glue.tasks import NINE


def average(scores: Mapping[tuple[str, str], float], wnli: bool) -> float:
    """GLUE's one number for a model: the mean over its nine tasks, or without WNLI over eight, of their scores.

    `scores` is by task and split; a task in several splits (MNLI's two halves) counts once, with
    their mean. AX is no task of GLUE's average. Raises ValueError when a task is missing, as a mean
    over others could not be compared.
    """
    counted = [name for name in NINE if wnli or name != "wnli"]
    splits = {
        name: [value for (task, _), value in scores.items() if task == name] for name in counted
    }
    missing = [name for name in counted if not splits[name]]
    if missing:
        raise ValueError(
            f"GLUE's average needs a score of every task; there is none of {', '.join(missing)}"
        )
    return sum(sum(values) / len(values) for values in splits.values()) / len(counted)
