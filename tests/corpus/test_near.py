"""Bands: shared as often as the theory of MinHash says, and by nothing but the words."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.corpus import near
from sqzb.corpus.near import PERMUTATIONS, WORDS, Bands
from sqzb.errors import UserError

thresholds = st.floats(0.5, 0.99)
words = st.lists(
    st.sampled_from(["the", "river", "of", "stone", "and", "a", "naïve", "élan", "42"]), max_size=30
)


def shared(bands: Bands, one: list[str], other: list[str]) -> list[int]:
    """How many bands the texts of each pair share."""
    found: list[int] = (bands.of(one) == bands.of(other)).sum(axis=1).tolist()
    return found


def likeness(one: str, other: str) -> float:
    """The Jaccard index of the word 5-grams."""
    sets = [
        {tuple(said[at : at + WORDS]) for at in range(len(said) - WORDS + 1)}
        for said in (one.split(), other.split())
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def pairs(n: int, changes: tuple[int, int], size: int = 120) -> list[tuple[str, str]]:
    """Random texts, each with itself after some words were exchanged."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(n):
        one = draw.integers(0, 5000, size)
        other = one.copy()
        other[draw.choice(size, draw.integers(*changes), replace=False)] = draw.integers(5000, 9000)
        found.append((" ".join(map(str, one)), " ".join(map(str, other))))
    return found


@given(thresholds, st.integers(0, 2**64 - 1), st.text(max_size=60), words)
def test_equal_texts_share_all_bands(
    threshold: float, seed: int, one: str, other: list[str]
) -> None:
    bands = Bands(threshold, seed).of([one, " ".join(other), one])
    assert bands.dtype == np.uint64 and bands.shape[0] == 3 and 1 <= bands.shape[1] <= PERMUTATIONS
    assert (bands[0] == bands[2]).all()


@given(thresholds, words, st.sampled_from([" ", ", ", " - ", "\n", '." ', "\u00a0"]))
def test_case_and_punctuation_do_not_matter(
    threshold: float, said: list[str], between: str
) -> None:
    bands = Bands(threshold, 0).of([" ".join(said), between.join(said).upper() + "!"])
    assert (bands[0] == bands[1]).all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_pairs_share_a_band_as_often_as_the_theory_says(threshold: float) -> None:
    both = pairs(200, (1, 30))
    bands = Bands(threshold, 1)
    found = np.array(shared(bands, *map(list, zip(*both, strict=True)))) > 0
    n = bands.of([""]).shape[1]
    alike = np.array([likeness(*pair) for pair in both])
    chance = 1 - (1 - alike ** (PERMUTATIONS // n)) ** n
    deviation = (found.sum() - chance.sum()) / np.sqrt((chance * (1 - chance)).sum())
    assert abs(deviation) < 4
    # The steepest place lies near the threshold, as near as the divisors of 128 allow.
    assert abs((1 / n) ** (n / PERMUTATIONS) - threshold) < 0.11


def test_alike_texts_share_a_band_and_others_none() -> None:
    bands = Bands(0.8, 2)
    alike, others = pairs(200, (1, 2), 300), pairs(200, (15, 30))
    assert all(likeness(*pair) > 0.95 for pair in alike) and all(
        likeness(*pair) < 0.6 for pair in others
    )
    assert sum(n > 0 for n in shared(bands, *map(list, zip(*alike, strict=True)))) >= 198
    assert sum(n > 0 for n in shared(bands, *map(list, zip(*others, strict=True)))) <= 2


def test_another_process_finds_the_same_bands() -> None:
    texts = ["", "one", "the river of stone and a winter light"]
    program = f"from sqzb.corpus.near import Bands; print(Bands(0.7, 3).of({texts!r}).tolist())"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == str(Bands(0.7, 3).of(texts).tolist())
    assert (Bands(0.7, 3).of(texts) != Bands(0.7, 4).of(texts)).all()


def test_no_texts_have_no_bands() -> None:
    assert Bands(0.8, 0).of([]).shape == (0, Bands(0.8, 0).of([""]).shape[1])


def test_without_rensa_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UserError, match=r"pip install 'sqzb\[dedup\]'"):
        Bands(0.8, 0)


def test_the_bands_of_a_long_document_do_not_depend_on_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [" ".join(str(number) for number in range(n)) for n in (1, 4, 5, 6, 23, 24, 50)]
    whole = Bands(0.8, 0).of(texts)
    monkeypatch.setattr(near, "AT_ONCE", 7)
    assert (Bands(0.8, 0).of(texts) == whole).all()
