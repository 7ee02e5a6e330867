"""The plan of a finetuning run, as its start and `--dry-run` print it."""

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from sqzb import console
from sqzb.data.dataset import DataSet, Example
from sqzb.data.own import OwnData
from sqzb.finetuning.encode import Encoded
from sqzb.finetuning.report import count_examples
from sqzb.finetuning.texts import count_unseen, unseen_concerns, unseen_rows
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.open import Classifier
from sqzb.plan.estimates import Sizes
from sqzb.plan.report import Rows, rows_of
from sqzb.plan.workloads import finetuning_workload, planned_finetuning
from sqzb.recipe import FinetuneRecipe, number


def plan_rows(
    given: FinetuneRecipe,
    resolved: FinetuneRecipe,
    data: DataSet,
    model: Classifier,
    steps: int,
    n_train: int,
    evaluated: Mapping[str, Encoded],
) -> Rows:
    """Return the plan as names and facts.

    given: the recipe that may have `auto`; resolved: the same with numbers.
    n_train: training examples, without those that teachers label.
    evaluated: the examples to measure on, by split.
    """
    workload = finetuning_workload(
        resolved,
        SqueezeBertConfig(),
        steps,
        data.kind.outputs,
        _sizes(model, int(number(resolved.max_length))),
    )
    validation = {split: evaluated[split] for split in data.validation_splits}
    counts = f"{n_train:,} training and {count_examples(validation)} validation examples"
    for split in evaluated:
        if split not in validation:
            counts += f", {len(evaluated[split].ids):,} of {split} with labels"
    planned = planned_finetuning(given, resolved, workload, f"{data.name}: {counts}", [])
    return rows_of(planned)


def _sizes(model: Classifier, length: int) -> Sizes:
    config = model.config
    name = type(getattr(model, "model", model)).__name__
    if isinstance(config, SqueezeBertConfig):
        name = f"SqueezeBERT {config.num_hidden_layers} x {config.hidden_size}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Sizes(name, parameters, model.forward_flops(1, length))


def print_unseen(
    data: DataSet,
    splits: Mapping[str, Sequence[Example]],
    encoded: Mapping[str, Encoded],
    tokenizer: Tokenizer,
    max_length: int,
) -> None:
    """Print what the model does not see of each split, and warn where it is much.

    splits, encoded: the examples by split; `encoded` may have fewer splits.
    """
    unseen = {
        split: count_unseen(splits[split], of_split, tokenizer, max_length)
        for split, of_split in encoded.items()
    }
    title = f"Text that the model does not see, at max_length {max_length}"
    console.table(title, *unseen_rows(unseen))
    for split, of_split in unseen.items():
        # The overview of own data warns about the training examples.
        if isinstance(data, OwnData) and split == data.train_split:
            continue
        for concern in unseen_concerns(split, of_split, max_length):
            console.warn(concern)
