"""A finetuned model in Python: texts to typed predictions.

from sqzb import load

model = load("runs/reviews")
model.predict(["A fine film.", "Dull."])
"""

import math
import re
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

from sqzb.data.dataset import Classes, Example, Kind, Labels, Number, Tags, Text, is_empty
from sqzb.data.metrics.calibration import sigmoid, softmax
from sqzb.data.metrics.entities import Scheme, entities, scheme_of
from sqzb.data.texts import COUNTS
from sqzb.errors import UserError
from sqzb.export.folder import is_export
from sqzb.export.opened import open_export, open_exported_classifier
from sqzb.finetuning.encode import encode
from sqzb.finetuning.evaluation import decide
from sqzb.finetuning.finetuned import longest_input, text_columns, text_count
from sqzb.finetuning.predict import EVALUATION_BATCH, predict
from sqzb.finetuning.texts import Unseen, count_unseen, unseen_warnings
from sqzb.model.open import Classifier, Opened, model_folder, open_classifier
from sqzb.training.engine import start_accelerator

# Texts that are read ahead, to be sorted by their lengths.
WINDOW = 1024
# A word of a text that is not divided into words: letters and digits, or one other character.
WORD = re.compile(r"\w+|[^\w\s]")

Item = TypeVar("Item")


@dataclass(frozen=True)
class ClassPrediction:
    """The most likely class of a text.

    label: name of the class.
    probability: of this class, 0 to 1.
    probabilities: of each class by name, in the model's order.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class NumberPrediction:
    """The number that a regression gives to a text, in the unit of its training data."""

    value: float


@dataclass(frozen=True)
class LabelsPrediction:
    """The labels of a text: several, one or none.

    labels         whose probability reaches the label's threshold, which training tuned
    probabilities  of each label by name, in the model's order
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Entity:
    """A span of a text: the characters from `start` up to `end`, which is not among them."""

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True)
class TokensPrediction:
    """The tag of each word of a text, and the entities that the tags mark.

    Offsets of entities are those of the given text, or of the given words with spaces between.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]


Prediction = ClassPrediction | NumberPrediction | LabelsPrediction | TokensPrediction


class Window(NamedTuple):
    """The predictions for a window of texts, and what the model did not see of these.

    predictions: None for an empty text.
    """

    predictions: list[Prediction | None]
    unseen: Unseen


class FinetunedModel:
    """A finetuned model, its tokenizer, and the device that it runs on.

    kind        classes, a number, several labels, or tags of words
    texts       texts of an example: 1, or 2 for pairs; None where the folder does not tell
    columns     of the texts in the training data; none where it was GLUE's or is not known
    max_length  tokens of the longest input; the ends of longer texts are cut
    """

    def __init__(
        self,
        opened: Opened[Classifier],
        max_length: int,
        texts: int | None,
        columns: tuple[str, ...],
        accelerator: Accelerator,
    ) -> None:
        self.kind = _kind_of(opened)
        self.texts = texts
        self.columns = columns
        self.max_length = max_length
        self._model = opened.model.to(accelerator.device)
        self._tokenizer = opened.tokenizer
        self._accelerator = accelerator

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, labels or tags, in the model's order; none for a number."""
        return self.kind.names

    @property
    def takes_words(self) -> bool:
        """Whether a text may be a list of words, each of which gets a tag."""
        return isinstance(self.kind, Tags)

    def predict(self, texts: Iterable[Text]) -> list[Prediction | None]:
        """Return the prediction for each text, in order; None for an empty text.

        texts: any number of texts; a pair is a tuple of two. Texts over `max_length` are cut, with
        a warning.

        Raises:
            UserError: A text is no text, or an example has the wrong number of texts.
        """
        return list(self.stream(texts))

    def stream(self, texts: Iterable[Text], window: int = WINDOW) -> Iterator[Prediction | None]:
        """Yield what `predict` returns, reading at most a window of texts ahead.

        Memory use is bounded, so `texts` may be a generator of any length.

        Raises:
            UserError: as in `predict`, or `texts` is a single text.
        """
        if isinstance(texts, str):
            raise UserError(
                "Give a list of texts, such as model.predict([text]); this is one text."
            )
        first = 0
        for together in windows(texts, window):
            window_of_texts = self.predict_window(together, first)
            for sentence in unseen_warnings(window_of_texts.unseen, self.max_length):
                warnings.warn(sentence, stacklevel=2)
            yield from window_of_texts.predictions
            first += len(together)

    def predict_window(self, texts: Sequence[Text], first: int = 0) -> Window:
        """Predict texts that are held in memory together, in batches of similar lengths.

        first: index of the first text, for messages.

        Raises:
            UserError: As in `predict`.
        """
        examples = [self._example(text, row) for row, text in enumerate(texts, first)]
        rows = [row for row, text in enumerate(texts) if not is_empty(text)]
        predictions: list[Prediction | None] = [None] * len(texts)
        if not rows:
            return Window(predictions, Unseen())
        given = [examples[row] for row in rows]
        encoded = encode(given, self._tokenizer, self.max_length, self.kind)
        with torch.inference_mode():
            logits = predict(self._model, encoded, self._accelerator)
        unseen = count_unseen(given, encoded, self._tokenizer, self.max_length)
        of_texts = self._predictions(logits) if encoded.words is None else []
        best = logits.argmax(1)
        for place, row in enumerate(rows):
            if encoded.words is None:
                predictions[row] = of_texts[place]
                continue
            tags = [self.labels[tag] for tag in best[encoded.words.of(place)]]
            words = examples[row].words or ()
            predictions[row] = _of_tokens(texts[row], words, tags, scheme_of(self.labels))
        return Window(predictions, unseen)

    def _example(self, text: Text, row: int) -> Example:
        if isinstance(self.kind, Tags):
            return _words_example(text, row)
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

    def _predictions(self, logits: NDArray[np.float32]) -> list[Prediction]:
        """Return the predictions of logits (texts, labels)."""
        if isinstance(self.kind, Number):
            return [NumberPrediction(value) for value in _rounded(logits[:, 0])]

        config = self._model.config
        if isinstance(self.kind, Labels):
            probabilities = sigmoid(logits)
            thresholds = config.thresholds
        else:
            probabilities = softmax(logits, config.calibration_temperature or 1.0)
            thresholds = None
        predictions: list[Prediction] = []
        holds = decide(self.kind, logits, thresholds)
        for row, decided in zip(probabilities, holds, strict=True):
            numbers = _rounded(row)
            by_label = dict(zip(self.labels, numbers, strict=True))
            if isinstance(self.kind, Labels):
                names = tuple(self.labels[index] for index in np.flatnonzero(decided))
                predictions.append(LabelsPrediction(names, by_label))
            else:
                predictions.append(
                    ClassPrediction(self.labels[decided], numbers[decided], by_label)
                )
        return predictions


def load(path: str | Path, threads: int | None = None) -> FinetunedModel:
    """Open the finetuned model of a run, a saved folder or a Hub id, or an export of one.

    Texts are cut at the `max_length` of the model's run, or at the model's positions. An export
    runs by its runtime, on the CPU.

    threads: of an export's runtime; None: the runtime's own choice. torch has its own setting.

    Raises:
        UserError: There is no such model, it cannot be opened, or it has no classifier.
    """
    if is_export(path):
        exported = open_export(Path(path), threads)
        record = exported.record
        opened = open_exported_classifier(exported)
        columns = tuple(record.columns)
        return FinetunedModel(opened, record.max_length, record.texts, columns, start_accelerator())
    folder = model_folder(path)
    opened = open_classifier(folder)
    columns = text_columns(folder)
    texts = text_count(folder)
    max_length = longest_input(folder, opened.model.config.max_position_embeddings)
    return FinetunedModel(opened, max_length, texts, columns, start_accelerator())


def windows(items: Iterable[Item], largest: int = WINDOW) -> Iterator[list[Item]]:
    """Yield the items in lists: a batch at first, then twice as many each time, up to `largest`.

    Small windows at the beginning let the first results come soon; large ones pad little.
    """
    size = min(EVALUATION_BATCH, largest)
    stream = iter(items)
    while window := list(islice(stream, size)):
        yield window
        size = min(2 * size, largest)


def _words_example(text: Text, row: int) -> Example:
    """Return an example with the words of a text, or with given words."""
    if isinstance(text, str):
        words = tuple(match[0] for match in WORD.finditer(text))
    elif isinstance(text, list) and all(isinstance(word, str) for word in text):
        words = tuple(text)
    else:
        raise UserError(
            f"texts[{row}] is {text!r:.60}. Give each text as a str, or as a list of its words."
        )
    return Example(" ".join(words), None, None, row, words)


def _of_tokens(
    text: Text, words: tuple[str, ...], tags: Sequence[str], scheme: Scheme | None
) -> TokensPrediction:
    """Return the tags of a text's words with the entities that they mark, by character.

    scheme: of the tags; None where they mark no entities
    """
    given = text if isinstance(text, str) else " ".join(words)
    spans = [match.span() for match in WORD.finditer(given)]
    if not isinstance(text, str):
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        spans = [(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)]
    marked = []
    for entity in [] if scheme is None else entities(tags, scheme):
        start, end = spans[entity.start][0], spans[entity.end - 1][1]
        marked.append(Entity(start, end, entity.type, given[start:end]))
    return TokensPrediction(words, tuple(tags), tuple(marked))


def _rounded(values: NDArray[np.floating]) -> list[float]:
    """Return the numbers with as many decimals as tell two fp32 numbers apart, such as 0.9312."""
    return [float(str(value)) for value in values.astype(np.float32)]


def _kind_of(opened: Opened[Classifier]) -> Kind:
    """Return what a model's outputs are, by its config.json."""
    config = opened.model.config
    names = tuple(config.id2label[index] for index in range(config.num_labels))
    if opened.folder.classifies_tokens:
        return Tags(names)
    if config.problem_type == "multi_label_classification":
        return Labels(names)
    return Classes(names) if len(names) > 1 else Number(-math.inf, math.inf)
