"""The check of an export: the runtime's outputs against the model in torch, on real texts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb.corpus.formats import python_docs
from sqzb.data.dataset import Classes, DataSet, Example
from sqzb.errors import UserError
from sqzb.export.folder import Check, Difference, ExportRecord
from sqzb.export.heads import INPUTS, OUTPUTS, VECTORS
from sqzb.export.opened import Exported
from sqzb.finetuning.encode import Encoded, encode

EXAMPLES, BATCH = 16, 4
SINGLES = 4  # every fourth example is also computed alone, without padding
TOLERANCE = 1e-4  # of fp32, as a share of the largest logit where that is over 1
CALIBRATION = 128  # texts to calibrate scales on
POOL = 2000  # texts from which the examples are chosen
DOCUMENTED, LONG = 200, 500  # texts of Python's documentation, and words of the longest


Batches = Iterator[Mapping[str, NDArray[np.int64]]]


def documentation(texts: int | None) -> list[Example]:
    """Return sentences of Python's documentation, alone and in pairs, of all lengths.

    texts: texts of an example; None: examples of one and of two.
    """
    words = " ".join(python_docs.read()).split()
    examples = []
    start = 0
    for row in range(DOCUMENTED):
        length = LONG if row % 25 == 24 else 1 + row % 64
        first = " ".join(words[start : start + length])
        second = " ".join(words[start + length : start + length + 1 + row % 40])
        is_pair = texts == 2 or (texts is None and row % 2 == 1)
        examples.append(Example(first, second if is_pair else None, None, row))
        start += length
    return examples


def check_texts(data: DataSet | None, texts: int | None) -> tuple[str, list[Example]]:
    """Return the texts to compare on, and their origin: validation data that is on this disk.

    data: the model's own data; None or data of the Hub is replaced by Python's documentation.
    """
    split = None if data is None or not data.validation_splits else data.validation_splits[0]
    examples = _of_split(data, split)
    if data is not None and examples:
        return f"validation data of {data.name}", examples
    return "Python's documentation", documentation(texts)


def calibration_batches(
    data: DataSet | None, record: ExportRecord, tokenizer: Tokenizer
) -> Batches:
    """Yield texts to calibrate scales on, as inputs of one text: training data on this disk.

    data: as in `check_texts`.
    """
    examples = _of_split(data, None if data is None else data.train_split)
    examples = examples or documentation(record.texts)
    encoded = encode(examples, tokenizer, record.max_length, Classes(("",)))
    for row in _spread(encoded, CALIBRATION):
        batch = encoded.batch([row])
        yield {name: batch[name].numpy() for name in INPUTS}


def _of_split(data: DataSet | None, split: str | None) -> list[Example]:
    """Return the first texts of a split on this disk; none if they are few, or are gone."""
    if data is None or split is None or not data.on_disk:
        return []
    # Any texts will do, so files that are gone since training are no error here.
    with suppress(UserError, OSError):
        examples, _ = data.read(split)
        unlabelled = [example._replace(label=None, words=None) for example in examples[:POOL]]
        if len(unlabelled) >= BATCH:
            return unlabelled
    return []


def compare(
    model: nn.Module, exported: Exported, origin: str, examples: Sequence[Example]
) -> Check:
    """Compare the outputs of an export with those of the model in torch.

    The examples are spread over all lengths. Each is computed in a batch with padding, and some
    also alone.

    model: the model in torch, on the CPU.

    Raises:
        UserError: the outputs of an export in fp32 differ by more than TOLERANCE.
    """
    encoded = encode(examples, exported.tokenizer, exported.record.max_length, Classes(("",)))
    rows = _spread(encoded, EXAMPLES)
    lengths = [len(encoded.ids[row]) for row in rows]
    largest = dict.fromkeys(exported.record.outputs, (0.0, 0.0))
    for batch in _batches(rows):
        inputs = {name: t for name, t in encoded.batch(batch).items() if name != "labels"}
        mask = inputs["attention_mask"]
        with torch.no_grad():
            expected = _expected(model(**inputs), mask, exported)
        given = exported.run(inputs)
        is_token = mask.numpy() == 1
        for name, axes in OUTPUTS[exported.record.head].items():
            ours, theirs = expected[name], given[name]
            if "length" in axes:
                ours, theirs = ours[is_token], theirs[is_token]
            difference, value = np.abs(ours - theirs).max(), np.abs(ours).max()
            before = largest[name]
            largest[name] = max(before[0], float(difference)), max(before[1], float(value))
            if not np.isfinite(theirs).all():
                raise UserError(f"The export's {name} is not finite on {origin}. {_report()}")
    is_exact = exported.record.precision == "fp32"
    check = Check(
        texts=origin,
        examples=len(rows),
        shortest=min(lengths),
        longest=max(lengths),
        outputs={
            name: Difference(largest_difference=difference, largest_value=value)
            for name, (difference, value) in largest.items()
        },
        tolerance=TOLERANCE if is_exact else None,
    )
    if is_exact:
        _refuse_different(check)
    return check


def _refuse_different(check: Check) -> None:
    for name, of_output in check.outputs.items():
        allowed = TOLERANCE * max(1.0, of_output.largest_value)
        if of_output.largest_difference > allowed:
            raise UserError(
                f"The export's {name} differs from the model in torch by "
                f"{of_output.largest_difference:.2g} on {check.texts}, and {allowed:.2g} is "
                f"allowed. {_report()}"
            )


def _report() -> str:
    return (
        "Nothing was written. Try another version of the runtime, and report this with the "
        "versions of both."
    )


def _expected(outputs: Any, mask: Tensor, exported: Exported) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of the model in torch by the names of the export."""
    if exported.record.head == VECTORS:
        weights = mask[:, :, None].float()
        mean = (outputs.last_hidden_state * weights).sum(1) / weights.sum(1)
        return {"sentence_embedding": mean.numpy()}
    return {name: getattr(outputs, name).numpy() for name in exported.record.outputs}


def _spread(encoded: Encoded, count: int) -> list[int]:
    """Return `count` rows from the shortest to the longest, evenly spaced by rank."""
    by_length = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    ranks = np.linspace(0, len(by_length) - 1, min(count, len(by_length))).round()
    rows: list[int] = by_length[np.unique(ranks.astype(int))].tolist()
    return rows


def _batches(rows: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of mixed lengths, then single examples."""
    count = max(1, len(rows) // BATCH)
    for first in range(count):
        yield list(rows[first::count])
    for row in rows[::SINGLES]:
        yield [row]
