"""The choice of labelled data: from a recipe to a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqzb.data.dataset import DataSet
from sqzb.errors import RecipeError, UserError
from sqzb.files import read_json_object, write_json
from sqzb.glue.data import open_task
from sqzb.recipe import FinetuneRecipe
from sqzb.training.run_folder import KNOWN, folders_of

if TYPE_CHECKING:  # so that a wrong task is reported before the slow import of pyarrow
    from sqzb.data.known import Known


def open_data(recipe: FinetuneRecipe, known: "Known | None" = None) -> DataSet:
    """Return the data set that the recipe names; splits of a GLUE task are read when first needed.

    known: the facts about own data that a finished run has stored, so that it need not find them.

    Raises:
        RecipeError: the recipe names no data, or a task that does not exist.
        UserError: own data is wrong.
    """
    if recipe.data.train:
        from sqzb.data.own import OwnFiles, open_own

        return _with_best(open_own(OwnFiles(**recipe.data.model_dump()), known), recipe.best_metric)
    if recipe.task is None:
        raise RecipeError(
            "There is no data: give --train FILE for data of your own, or --task for GLUE's, such "
            "as --task mrpc."
        )
    folder = None if recipe.glue_dir is None else Path(recipe.glue_dir)
    return _with_best(open_task(recipe.task, folder), recipe.best_metric)


def open_other(
    recipe: FinetuneRecipe,
    known: "Known",
    files: Sequence[str],
    text: Sequence[str],
    label: str | None,
) -> DataSet:
    """Return other files as a data set with the labels of a run's own data.

    files: to measure on, as the validation split.
    text, label: their columns; empty and None for those of the run.

    Raises:
        UserError: The files cannot be read, or lack the columns.
    """
    from sqzb.data.own import OwnFiles, open_own

    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    known = replace(
        known.for_other_files(),
        name=f"{files[0]}{others}",  # the training data's name would hide what was measured
        text=tuple(text) or known.text,
        label=label or known.label,
    )
    own = OwnFiles(
        validation=tuple(files), separator=recipe.data.separator, revision=recipe.data.revision
    )
    return _with_best(open_own(own, known), recipe.best_metric)


def check_trainable(data: DataSet) -> None:
    """Check that a model can be trained and measured on the data set.

    Raises:
        UserError: it has no training or no validation examples.
    """
    if data.train_split is None:
        raise UserError(
            f"{data.name} has no training examples: finetune {data.model_of}, whose model "
            f"predicts it (sqzb eval RUN --task {data.name} --split test)."
        )
    if not data.validation_splits:
        raise UserError(
            f"{data.name} has no validation examples, so nothing would tell how good the model is. "
            "Give examples with --validation, or a data.holdout over 0."
        )


def _with_best(data: DataSet, metric: str | None) -> DataSet:
    """Return the data set with the metric that chooses the best model.

    Raises:
        UserError: It is no metric of this data set.
    """
    if metric is None:
        return data
    if metric not in data.metrics:
        names = ", ".join(data.metrics)
        raise UserError(
            f"best_metric={metric}: {data.name} is measured by {names}. Give one of them."
        )
    return replace(data, score_metrics=(metric,))


def write_known(run: Path, known: "Known") -> None:
    """Write what the run knows of its own data."""
    write_json(run / KNOWN, known.to_json())


def read_known(run: Path) -> "Known | None":
    """Return what a run knows of its own data; None of a run on a GLUE task.

    run: the run's folder, or its final/ or one of its checkpoints.

    Raises:
        UserError: The file is damaged.
    """
    from sqzb.data.known import Known

    for path in (folder / KNOWN for folder in folders_of(run)):
        if not path.exists():
            continue
        try:
            return Known.from_json(read_json_object(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read ({error!r}). Put it back from a copy of the run; `sqzb "
                "predict` and `sqzb eval --data` need it for the columns."
            ) from error
    return None
