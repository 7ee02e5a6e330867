"""Figures of texts under a model's tokenizer: lengths, and what the model does not see."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from sqzb.console import counted
from sqzb.data.dataset import DataSet, Example, in_common
from sqzb.finetuning.encode import Encoded
from sqzb.tokenizer import MANY_UNKNOWN, UNK, unknown_characters

CHUNK = 4096  # examples that are tokenised at once, so that memory stays bounded
MANY_CUT = 0.1  # share of cut examples from which a warning is printed


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
    unknown = _unknown_token(tokenizer)
    lengths: list[int] = []
    tokens = unknown_tokens = 0
    for encoding in _uncut(examples, tokenizer):
        lengths.append(len(encoding.ids))
        tokens += len(encoding.ids) - sum(encoding.special_tokens_mask)
        unknown_tokens += 0 if unknown is None else encoding.ids.count(unknown)
    return TextFigures(np.array(lengths, np.int64), tokens, unknown_tokens)


@dataclass(frozen=True)
class Unseen:
    """Counts of what a model does not see of examples.

    examples: all of them; cut: those with more tokens than the model reads.
    tokens: of the uncut examples, special tokens included; tokens_cut: those behind the cut.
    characters: of the uncut examples, without spaces; unknown: those in unknown tokens.
    mostly_unknown: examples with more than half of their characters in unknown tokens.
    """

    examples: int = 0
    cut: int = 0
    tokens: int = 0
    tokens_cut: int = 0
    characters: int = 0
    unknown: int = 0
    mostly_unknown: int = 0

    def __add__(self, other: "Unseen") -> "Unseen":
        return Unseen(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def share_cut(self) -> float:
        """Share of the examples that are cut."""
        return self.cut / max(1, self.examples)

    @property
    def share_tokens_cut(self) -> float:
        """Share of the tokens that are behind the cut."""
        return self.tokens_cut / max(1, self.tokens)

    @property
    def share_unknown(self) -> float:
        """Share of the characters that are in unknown tokens."""
        return self.unknown / max(1, self.characters)


def count_unseen(
    examples: Sequence[Example], encoded: Encoded, tokenizer: Tokenizer, max_length: int
) -> Unseen:
    """Count what a model does not see of examples.

    Only examples that may be cut, and those with an unknown token, are tokenised again.

    encoded: the examples, cut to `max_length`.
    """
    unknown = _unknown_token(tokenizer)
    rows: list[int] = []
    for row, ids in enumerate(encoded.ids):
        if len(ids) >= max_length or unknown in ids:
            rows.append(row)

    cut = tokens_cut = in_unknown = mostly_unknown = 0
    doubtful = [examples[row] for row in rows]
    for row, encoding in zip(rows, _uncut(doubtful, tokenizer), strict=True):
        behind = len(encoding.ids) - len(encoded.ids[row])
        cut += behind > 0
        tokens_cut += behind
        if unknown in encoding.ids:
            characters = unknown_characters(encoding.ids, encoding.offsets, unknown)
            in_unknown += characters
            mostly_unknown += characters > _characters(examples[row]) / 2
    return Unseen(
        examples=len(examples),
        cut=cut,
        tokens=sum(map(len, encoded.ids)) + tokens_cut,
        tokens_cut=tokens_cut,
        characters=sum(map(_characters, examples)),
        unknown=in_unknown,
        mostly_unknown=mostly_unknown,
    )


def cut_warning(unseen: Unseen, max_length: int) -> str:
    """Return the sentence that tells how many texts were cut."""
    have = "has" if unseen.examples == 1 else "have"
    return (
        f"{unseen.cut:,} of {counted(unseen.examples, 'text')} {have} more than {max_length} "
        "tokens, as many as the model was trained with; the ends were cut off, which are "
        f"{unseen.share_tokens_cut:.1%} of all tokens."
    )


def unknown_warning(unseen: Unseen) -> str | None:
    """Return the sentence that tells how much text is unknown; None where it is little."""
    if unseen.share_unknown <= MANY_UNKNOWN and not unseen.mostly_unknown:
        return None
    mostly = ""
    if unseen.mostly_unknown:
        are = "is" if unseen.examples == 1 else "are"
        texts = counted(unseen.examples, "text")
        mostly = f", and {unseen.mostly_unknown:,} of {texts} {are} mostly [UNK]"
    return (
        f"{unseen.share_unknown:.1%} of the characters are [UNK]{mostly}: the model's vocabulary "
        "does not know them, so it cannot tell them apart. Use a model with a vocabulary for this "
        "language and these characters."
    )


def unseen_warnings(unseen: Unseen, max_length: int) -> list[str]:
    """Return sentences to warn with after predictions; none where the model saw the texts."""
    warnings = [cut_warning(unseen, max_length)] if unseen.cut else []
    unknown = unknown_warning(unseen)
    return warnings if unknown is None else [*warnings, unknown]


def unseen_rows(splits: Mapping[str, Unseen]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a table of what a model does not see of each split."""
    header = ("split", "examples cut", "tokens cut", "characters in [UNK]")
    rows: list[tuple[str, ...]] = []
    for name, unseen in splits.items():
        shares = (unseen.share_cut, unseen.share_tokens_cut, unseen.share_unknown)
        rows.append((name, *(f"{share:.1%}" for share in shares)))
    return header, rows


def unseen_concerns(split: str, unseen: Unseen, max_length: int) -> list[str]:
    """Return sentences to warn with before training."""
    warnings: list[str] = []
    if unseen.share_cut > MANY_CUT:
        warnings.append(
            f"{unseen.share_cut:.1%} of the {split} examples are cut to {max_length} tokens: the "
            "model does not see the rest. A higher max_length keeps more, and takes longer."
        )
    if unseen.share_unknown > MANY_UNKNOWN:
        warnings.append(
            f"{unseen.share_unknown:.1%} of the characters of the {split} examples are [UNK], so "
            "the model cannot tell them apart. Start from a model with a vocabulary for this "
            "language and these characters."
        )
    return warnings


def _characters(example: Example) -> int:
    """Return the characters of an example, without spaces."""
    texts = (example.text_a, example.text_b or "")
    return sum(len(text) - text.count(" ") for text in texts)


def _unknown_token(tokenizer: Tokenizer) -> int | None:
    """Return the number of the unknown token; None if the tokenizer has none."""
    return tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or UNK)


def _uncut(examples: Sequence[Example], tokenizer: Tokenizer) -> Iterator[Encoding]:
    """Yield the encodings of examples as a model would read them without a limit."""
    with _without_limits(tokenizer):
        for start in range(0, len(examples), CHUNK):
            yield from tokenizer.encode_batch(*_inputs(examples[start : start + CHUNK]))


@contextmanager
def _without_limits(tokenizer: Tokenizer) -> Iterator[None]:
    """Turn off a tokenizer's truncation and padding for a while."""
    padding, truncation = tokenizer.padding, tokenizer.truncation
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        yield
    finally:
        if truncation:
            tokenizer.enable_truncation(**truncation)
        if padding:
            tokenizer.enable_padding(**padding)


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
