"""A finetuned model in Python: texts to typed predictions.

from sqzb import load

model = load("runs/reviews")
model.predict(["A fine film.", "Dull."])
"""

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb.data.dataset import Classes, Example, Kind, Number, Text
from sqzb.data.texts import COUNTS
from sqzb.errors import UserError
from sqzb.finetuning.data import open_data
from sqzb.finetuning.encode import encode
from sqzb.finetuning.predict import EVALUATION_BATCH, predict
from sqzb.model.open import Classifier, model_folder, open_classifier
from sqzb.recipe import FinetuneRecipe, number
from sqzb.training.engine import start_accelerator
from sqzb.training.run_folder import RECIPE, recipe_of

# Texts that are read ahead, to be sorted by their lengths.
WINDOW = 1024
# In a run's folder: what it remembers of its own data.
DATA = "data.json"

Item = TypeVar("Item")


@dataclass(frozen=True)
class ClassPrediction:
    """The likeliest class of a text.

    label          name of the class
    probability    of this class, 0 to 1
    probabilities  of each class by name, in the model's order
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class NumberPrediction:
    """The number that a regression gives to a text, in the unit of its training data."""

    value: float


Prediction = ClassPrediction | NumberPrediction


class Window(NamedTuple):
    """The predictions for a window of texts, and the number of texts that were cut."""

    predictions: list[Prediction]
    cut: int


class FinetunedModel:
    """A finetuned model, its tokenizer, and the device that it runs on.

    kind        classes or a number
    texts       texts of an example: 1, or 2 for pairs; None where the folder does not tell
    max_length  tokens of the longest input; the ends of longer texts are cut
    """

    def __init__(
        self,
        model: Classifier,
        tokenizer: Tokenizer,
        max_length: int,
        texts: int | None,
        accelerator: Accelerator,
    ) -> None:
        self.kind = _kind_of(model)
        self.texts = texts
        self.max_length = max_length
        self._model = model.to(accelerator.device)
        self._tokenizer = tokenizer
        self._accelerator = accelerator

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the model's order; none for a number."""
        return self.kind.names

    def predict(self, texts: Iterable[Text]) -> list[Prediction]:
        """Return the prediction for each text, in order.

        texts: any number of texts; a pair is a tuple of two. Texts over `max_length` are cut, with
        a warning.

        Raises:
            UserError: A text is no text, or an example has the wrong number of texts.
        """
        return list(self.stream(texts))

    def stream(self, texts: Iterable[Text], window: int = WINDOW) -> Iterator[Prediction]:
        """Yield what `predict` returns, reading at most a window of texts ahead.

        Memory use is bounded, so `texts` may be a generator of any length.
        """
        if isinstance(texts, str):
            raise UserError(
                "Give a list of texts, such as model.predict([text]); this is one text."
            )
        first = 0
        for together in windows(texts, window):
            found = self.predict_window(together, first)
            if found.cut:
                warnings.warn(cut_warning(found.cut, len(together), self.max_length), stacklevel=2)
            yield from found.predictions
            first += len(together)

    def predict_window(self, texts: Sequence[Text], first: int = 0) -> Window:
        """Predict texts that are held in memory together, in batches of similar lengths.

        first: index of the first text, for messages.

        Raises:
            UserError: As in `predict`.
        """
        examples = [self._example(text, row) for row, text in enumerate(texts, first)]
        if not examples:
            return Window([], 0)
        encoded = encode(examples, self._tokenizer, self.max_length, self.kind)
        with torch.inference_mode():
            logits = predict(self._model, encoded, self._accelerator)
        longest = [
            example
            for example, ids in zip(examples, encoded.ids, strict=True)
            if len(ids) == self.max_length
        ]
        return Window(self._predictions(logits), sum(map(self._is_cut, longest)))

    def _example(self, text: Text, row: int) -> Example:
        given: object = (text,) if isinstance(text, str) else text
        if not isinstance(given, tuple) or not all(isinstance(part, str) for part in given):
            raise UserError(
                f"texts[{row}] is {text!r:.60}. Give each text as a str, a pair as a tuple of two."
            )
        if len(given) not in ((1, 2) if self.texts is None else (self.texts,)):
            needs = COUNTS[self.texts] if self.texts else "one text or two"
            counted = f"{len(given)} texts" if len(given) > 2 else COUNTS[len(given)]
            raise UserError(f"texts[{row}] has {counted}, and the model needs {needs} per example.")
        return Example(given[0], given[1] if len(given) == 2 else None, None, row)

    def _is_cut(self, example: Example) -> bool:
        """Return whether an example that fills `max_length` is longer than it."""
        whole = self._tokenizer.encode(example.text_a, example.text_b)
        return len(whole.ids) > self.max_length

    def _predictions(self, logits: NDArray[np.float32]) -> list[Prediction]:
        """Return the predictions of logits (texts, labels)."""
        if isinstance(self.kind, Number):
            return [NumberPrediction(value) for value in _rounded(logits[:, 0])]
        probabilities = softmax(logits)
        best = probabilities.argmax(1).tolist()
        found: list[Prediction] = []
        for index, row in zip(best, probabilities, strict=True):
            numbers = _rounded(row)
            by_label = dict(zip(self.labels, numbers, strict=True))
            found.append(ClassPrediction(self.labels[index], numbers[index], by_label))
        return found


def load(path: str | Path) -> FinetunedModel:
    """Open the finetuned model of a run, a saved folder or a Hub id.

    Texts are cut at the `max_length` of the model's run, or at the model's positions.

    Raises:
        UserError: There is no such model, it cannot be opened, or it has no classifier.
    """
    folder = model_folder(path)
    opened = open_classifier(folder)
    recipe = recipe_of(str(folder.path), FinetuneRecipe)
    max_length = opened.model.config.max_position_embeddings
    texts = len(remembered_texts(folder.path)) or None
    if recipe is not None:
        max_length = min(int(number(recipe.max_length)), max_length)
        texts = texts if recipe.task is None else open_data(recipe).texts
    return FinetunedModel(opened.model, opened.tokenizer, max_length, texts, start_accelerator())


def remembered_texts(path: str | Path) -> tuple[str, ...]:
    """Return the columns of texts that a run was trained with; none of other models.

    path: of the run, or of its final/

    Raises:
        UserError: The run's data.json is damaged.
    """
    for folder in (Path(path), Path(path).parent):
        file = folder / DATA
        if not (file.exists() and (folder / RECIPE).exists()):
            continue
        try:
            return tuple(json.loads(file.read_text(encoding="utf-8"))["text"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} cannot be read ({error}). Get the run's folder again, or remove the file "
                "and name the columns with --text."
            ) from error
    return ()


def windows(items: Iterable[Item], largest: int = WINDOW) -> Iterator[list[Item]]:
    """Yield the items in lists: a batch at first, then twice as many each time, up to `largest`.

    Small windows at the beginning let the first results come soon; large ones pad little.
    """
    size = min(EVALUATION_BATCH, largest)
    stream = iter(items)
    while window := list(islice(stream, size)):
        yield window
        size = min(2 * size, largest)


def cut_warning(cut: int, of: int, max_length: int) -> str:
    """Return the sentence that tells how many texts were cut."""
    return (
        f"{cut:,} of {of:,} texts have more than {max_length} tokens, as many as the model was "
        "trained with; their ends were cut off."
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities (texts, labels), computed in fp64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True), np.float32)


def _rounded(values: NDArray[np.float32]) -> list[float]:
    """Return the numbers with as many decimals as tell two fp32 numbers apart, such as 0.9312."""
    return [float(str(value)) for value in values]


def _kind_of(model: Classifier) -> Kind:
    """Return what a model's outputs are, by its config.json."""
    names = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    return Classes(names) if len(names) > 1 else Number(-math.inf, math.inf)
