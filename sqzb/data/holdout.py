"""A share of the training examples, held out for validation by a hash of their texts."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from sqzb.data.dataset import Example

Texts = tuple[str, str | None]


def held_out(examples: Sequence[Example], share: float) -> list[bool]:
    """Return for each example whether it is held out.

    Examples with the same texts are on the same side. The choice does not depend on the order of
    the examples, and a greater share holds out the same examples and more. Each label has its
    share, and one example at least on each side if it has two different texts. An example with
    several labels counts for the rarest of them.

    share: from 0 to 1.
    """
    rows_by_texts: defaultdict[Texts, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows_by_texts[example.text_a, example.text_b].append(row)

    counts = Counter(label for example in examples for label in set(_labels(example)))
    strata: defaultdict[int, list[Texts]] = defaultdict(list)
    for texts, rows in rows_by_texts.items():
        labels = {label for row in rows for label in _labels(examples[row])}
        rarest = min(labels, key=lambda label: (counts[label], label), default=-1)
        strata[rarest].append(texts)

    chosen = [False] * len(examples)
    for stratum in strata.values():
        stratum.sort(key=_hash)
        n_examples = sum(len(rows_by_texts[texts]) for texts in stratum)
        due = max(1, round(share * n_examples)) if share > 0 else 0
        taken = 0
        for texts in stratum[:-1]:  # one at least is left to train on
            if taken >= due:
                break
            for row in rows_by_texts[texts]:
                chosen[row] = True
            taken += len(rows_by_texts[texts])
    return chosen


def _labels(example: Example) -> Sequence[int]:
    """Return the label indices of an example; none of a number."""
    if isinstance(example.label, tuple):
        return example.label
    return [example.label] if isinstance(example.label, int) else []


def _hash(texts: Texts) -> tuple[bytes, Texts]:
    """Return a sort key that is as good as random, and equal for equal texts only."""
    content = "\0".join(text for text in texts if text is not None)
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return digest, texts
