"""Figures of a data set's texts under a model's tokenizer: lengths, and unknown tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb.data.dataset import DataSet, Example, in_common
from sqzb.finetuning.encode import Encoded

CHUNK = 4096  # examples that are tokenised at once, so that memory stays bounded


@dataclass(frozen=True)
class TextFigures:
    """Figures of uncut texts.

    lengths: (examples), tokens of each example, special tokens included.
    tokens: number of all tokens, without special tokens.
    unknown_tokens: number of these that the vocabulary does not know.
    """

    lengths: NDArray[np.int64]
    tokens: int
    unknown_tokens: int

    def share_cut(self, max_length: int) -> float:
        """Return the share of the examples that have more than `max_length` tokens."""
        return float(np.mean(self.lengths > max_length))

    def percentile(self, per_cent: float) -> int:
        """Return the length that `per_cent` of the examples do not exceed."""
        return int(np.percentile(self.lengths, per_cent, method="higher"))

    @property
    def share_unknown(self) -> float:
        """Return the share of tokens that the vocabulary does not know."""
        return self.unknown_tokens / max(1, self.tokens)


def measure_texts(examples: Sequence[Example], tokenizer: Tokenizer) -> TextFigures:
    """Count the tokens of examples as a model would read them without a limit on their length."""
    padding, truncation = tokenizer.padding, tokenizer.truncation
    tokenizer.no_padding()
    tokenizer.no_truncation()
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "[UNK]")

    lengths: list[int] = []
    tokens = unknown_tokens = 0
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        for encoding in tokenizer.encode_batch(*_inputs(chunk)):
            lengths.append(len(encoding.ids))
            tokens += len(encoding.ids) - sum(encoding.special_tokens_mask)
            unknown_tokens += 0 if unknown is None else encoding.ids.count(unknown)

    if truncation:
        tokenizer.enable_truncation(**truncation)
    if padding:
        tokenizer.enable_padding(**padding)
    return TextFigures(np.array(lengths, np.int64), tokens, unknown_tokens)


def _inputs(examples: Sequence[Example]) -> tuple[list[object], bool]:
    """Return the arguments of `encode_batch`: inputs, and whether they are words already."""
    if examples[0].words is not None:
        return [example.words for example in examples], True
    inputs: list[object] = []
    for example in examples:
        pair = example.text_b is not None
        inputs.append((example.text_a, example.text_b) if pair else example.text_a)
    return inputs, False


def common_texts(data: DataSet, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Return a warning for each validation split with texts of training examples.

    splits: the examples by split.
    """
    warnings = []
    for split in data.validation_splits:
        examples = splits[split]
        common = in_common(splits[str(data.train_split)], examples)
        if common:
            warnings.append(
                f"{common:,} of the {len(examples):,} examples in {data.name}'s {split} split have "
                "the same texts as a training example, so the score also measures memorisation."
            )
    return warnings


def unseen_words(encoded: Encoded, max_length: int) -> list[str]:
    """Return a warning where words have tags that the model cannot see."""
    if encoded.words is None or not encoded.words.lost:
        return []
    return [
        f"{encoded.words.lost:,} of {len(encoded.words.places):,} words are behind max_length "
        f"{max_length}, or have no token: the model does not see them. Their prediction is O, or "
        "the commonest tag where there is no O."
    ]
