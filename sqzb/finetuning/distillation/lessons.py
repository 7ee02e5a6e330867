"""The texts that teachers label beside the training examples, and their logits on all of them."""

from collections.abc import Sequence

from accelerate import Accelerator

from sqzb.data.dataset import DataSet, Example
from sqzb.finetuning.distillation import augmentation
from sqzb.finetuning.distillation.teachers import Logits, ask_teachers, labelled
from sqzb.model.open import Classifier, ModelFolder
from sqzb.recipe import FinetuneRecipe


def label_with_teachers(
    recipe: FinetuneRecipe,
    data: DataSet,
    source: ModelFolder,
    teachers: Sequence[ModelFolder],
    examples: tuple[Sequence[Example], Sequence[Example]],
    model: Classifier,
    accelerator: Accelerator,
) -> tuple[list[Example], Logits]:
    """Return the extra examples with the teachers' labels, and the logits of all examples.

    The extra examples are the unlabelled ones and those of the augmentation. The logits are of the
    training examples first.

    source: folder of the model that is trained; teachers: as `find_teachers` returns them.
    examples: the training examples, and those without labels.
    model: with its initial weights.

    Raises:
        UserError: as `ask_teachers` raises it.
    """
    train, unlabelled = examples
    augmented = augmentation.augmented(recipe, data, source, train, accelerator)
    extra = [*unlabelled, *augmented]
    logits = ask_teachers(recipe.distillation, teachers, data, [*train, *extra], model, accelerator)
    # Of tags, the logits are of words; there are no extra examples then.
    return labelled(data.kind, extra, logits[-len(extra) :]) if extra else [], logits
