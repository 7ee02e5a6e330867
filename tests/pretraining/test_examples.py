"""Examples: BERT's masking and ALBERT's sentence order, exact in number and fair in every draw."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from examples import scaled
from sqzb.corpus.store import Chunks, write_arrays
from sqzb.model.heads import IGNORED
from sqzb.pretraining.examples import Batch, Objectives, _fitting
from sqzb.recipe import Masking
from sqzb.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=3, cls=9, sep=4, mask=1)
VOCABULARY, LENGTH = 300, 32
CONTINUING = np.arange(VOCABULARY) % 3 == 2  # tokens that go on with a word
UNLIKELY = 1e-4  # the draws are fixed, so this is no flaky test


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Chunks:
    """200 chunks of 1 to 29 tokens, the last of 29 in five sentences; some tokens are [UNK]."""
    draw = np.random.default_rng(0)
    sizes = [*draw.integers(1, LENGTH - 2, 199), LENGTH - 3]
    ordinary = np.setdiff1d(np.arange(VOCABULARY), SPECIAL)
    tokens = draw.choice(ordinary, sum(sizes))
    tokens[draw.random(len(tokens)) < 0.02] = SPECIAL.unk
    starts = np.concatenate([[0], np.cumsum(sizes)])
    last = starts[-2] + np.array([3, 10, 16, 20])
    tokens[starts[-2] :] = np.arange(100, 129)
    inside = [n for n in range(starts[-2]) if n not in starts and draw.random() < 0.15]
    sentences = np.unique([*starts[:-1], *inside, *last])
    bounds = np.stack([starts[:-1], starts[1:]], axis=1)
    return written(tmp_path_factory.mktemp("objectives"), tokens, sentences, bounds)


def written(
    folder: Path, tokens: NDArray[Any], sentences: NDArray[Any], bounds: NDArray[Any]
) -> Chunks:
    shard, table = folder / "shard.safetensors", folder / "table.safetensors"
    write_arrays(
        shard, {"tokens": tokens.astype(np.uint16), "sentences": sentences.astype(np.uint32)}
    )
    write_arrays(table, {f"train_{LENGTH}": bounds.astype(np.uint32)})
    return Chunks([shard], [table], f"train_{LENGTH}")


def objectives(
    max_predictions: int = 5,
    rate: float = 0.15,
    masking: Masking = "token",
    sop: bool = True,
    seed: int = 0,
) -> Objectives:
    return Objectives(SPECIAL, CONTINUING, LENGTH, max_predictions, rate, masking, sop, seed)


def all_rows(chunks: Chunks, epoch: int = 0, **options: Any) -> Batch:
    numbers = np.arange(len(chunks))
    return objectives(**options).batch(chunks, np.full_like(numbers, epoch), numbers)


def unmasked(batch: Batch) -> NDArray[Any]:
    """The input with the labels put back."""
    return np.stack([unmasked_row(batch, row) for row in range(len(batch.input_ids))])


def unmasked_row(batch: Batch, row: int) -> NDArray[Any]:
    """The input of one row with its labels put back."""
    ids: NDArray[Any] = batch.input_ids[row].copy()
    labels = batch.mlm_labels[row]
    ids[batch.mlm_positions[row][labels != IGNORED]] = labels[labels != IGNORED]
    return ids


def segments(batch: Batch, row: int) -> list[list[int]]:
    """The segments of a row without masks, in the order of the text."""
    ids = unmasked_row(batch, row)[batch.attention_mask[row] == 1]
    types = batch.token_type_ids[row][batch.attention_mask[row] == 1]
    assert ids[0] == SPECIAL.cls and ids[-1] == SPECIAL.sep
    first, second = ids[types == 0][1:], ids[types == 1]
    assert first[-1] == SPECIAL.sep
    if not len(second):
        return [first[:-1].tolist()]
    found = [first[:-1].tolist(), second[:-1].tolist()]
    return found[::-1] if batch.sop_labels[row] == 1 else found


@settings(max_examples=scaled(15))
@given(
    st.integers(1, LENGTH - 3),
    st.floats(0.01, 0.99),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.integers(0, 9),
)
def test_the_number_of_predictions_is_exact(
    chunks: Chunks, most: int, rate: float, sop: bool, seed: int, epoch: int
) -> None:
    batch = all_rows(chunks, epoch, max_predictions=most, rate=rate, sop=sop, seed=seed)
    original = unmasked(batch)
    for row in range(len(chunks)):
        tokens = int(batch.attention_mask[row].sum())
        ordinary = np.flatnonzero(~np.isin(original[row], SPECIAL))
        places = batch.mlm_positions[row][batch.mlm_labels[row] != IGNORED]
        assert len(places) == min(most, max(1, round(rate * tokens)), len(ordinary))
        assert set(places) <= set(ordinary) and len(set(places)) == len(
            places
        )  # no special token, none twice
        assert (batch.mlm_positions[row][len(places) :] == 0).all()
    changed = batch.input_ids != original
    assert not (
        np.isin(batch.input_ids, SPECIAL) & (batch.input_ids != SPECIAL.mask) & changed
    ).any()


def words_of(ids: NDArray[Any]) -> list[list[int]]:
    """The places of each whole word of a row without masks, read from left to right."""
    words: list[list[int]] = []
    for place, token in enumerate(ids):
        if token in SPECIAL:
            continue
        goes_on = CONTINUING[token] and words and words[-1][-1] == place - 1
        words[-1].append(place) if goes_on else words.append([place])
    return words


@settings(max_examples=scaled(15))
@given(
    st.integers(1, LENGTH - 3),
    st.floats(0.01, 0.99),
    st.sampled_from(["word", "ngram"]),
    st.booleans(),
    st.integers(0, 2**64 - 1),
)
def test_words_are_masked_whole_and_as_many_as_fit(
    chunks: Chunks, most: int, rate: float, masking: Masking, sop: bool, seed: int
) -> None:
    batch = all_rows(chunks, max_predictions=most, rate=rate, masking=masking, sop=sop, seed=seed)
    original = unmasked(batch)
    for row in range(len(chunks)):
        places = set(batch.mlm_positions[row][batch.mlm_labels[row] != IGNORED].tolist())
        words = words_of(original[row])
        whole = [word for word in words if set(word) <= places]
        assert sorted(places) == sorted(place for word in whole for place in word)
        wanted = min(most, max(1, round(rate * int(batch.attention_mask[row].sum()))))
        left = wanted - len(places)
        assert left >= 0
        if masking == "word":
            assert all(len(word) > left for word in words if word not in whole)
    changed = batch.input_ids != original
    assert not (
        np.isin(batch.input_ids, SPECIAL) & (batch.input_ids != SPECIAL.mask) & changed
    ).any()


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=9, max_size=9), min_size=1, max_size=5),
    st.lists(st.integers(1, 30), min_size=5, max_size=5),
)
def test_fitting_takes_each_that_still_fits(sizes: list[list[int]], room: list[int]) -> None:
    taken = _fitting(np.array(sizes), np.array(room[: len(sizes)]))
    for row, (of_row, left) in enumerate(zip(sizes, room, strict=False)):
        for size, is_taken in zip(of_row, taken[row], strict=True):
            assert is_taken == (0 < size <= left)
            left -= size * is_taken


def test_an_ngram_has_one_to_three_words_as_albert_draws_them() -> None:
    """In rows of words of one token; the last n-gram of a row, which its end may cut, is left
    out.
    """
    ids = np.full((800, LENGTH), 100)
    assert not CONTINUING[100]
    starts = objectives(masking="ngram")._starts(ids, ids == 100, np.arange(800, dtype=np.uint64))
    n_words = np.concatenate([np.diff(np.flatnonzero(row))[:8] for row in starts])
    counts = np.bincount(n_words)[1:]
    assert (
        len(counts) == 3
        and stats.chisquare(counts, counts.sum() * np.array([6, 3, 2]) / 11).pvalue > UNLIKELY
    )


def test_ngrams_mask_neighbours(chunks: Chunks) -> None:
    """More masked words stand beside a masked one than where words are drawn alone."""
    beside = {}
    for masking in ("word", "ngram"):
        batches = [all_rows(chunks, epoch, masking=masking) for epoch in range(10)]
        gaps = np.concatenate(
            [np.diff(np.where(b.mlm_labels == IGNORED, 10_000, b.mlm_positions)) for b in batches]
        )
        beside[masking] = (gaps == 1).mean()
    assert beside["ngram"] > 1.2 * beside["word"]


@settings(max_examples=scaled(8))
@given(st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_without_masks_the_chunk_is_there(chunks: Chunks, sop: bool, seed: int, epoch: int) -> None:
    batch = all_rows(chunks, epoch, sop=sop, seed=seed)
    for row in range(len(chunks)):
        tokens, boundaries = chunks[row]
        parts = segments(batch, row)
        assert [token for part in parts for token in part] == tokens.tolist()
        if sop and len(boundaries):
            assert batch.sop_labels[row] in (0, 1) and len(parts[0]) in boundaries
        else:
            assert batch.sop_labels[row] == IGNORED and len(parts) == 1
    padding = batch.attention_mask == 0
    assert (batch.input_ids[padding] == SPECIAL.pad).all() and (
        batch.token_type_ids[padding] == 0
    ).all()
    assert (np.diff(batch.attention_mask, axis=1) <= 0).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 199)), min_size=1, max_size=12),
    st.sampled_from(["token", "word", "ngram"]),
)
def test_a_row_is_the_same_in_any_batch(
    chunks: Chunks, rows: list[tuple[int, int]], masking: Masking
) -> None:
    made = objectives(masking=masking)
    together = made.batch(chunks, *np.array(rows, np.int64).T)
    for row, (epoch, number) in enumerate(rows):
        alone = made.batch(chunks, np.array([epoch]), np.array([number]))
        for name in Batch._fields:
            assert np.array_equal(getattr(together, name)[row], getattr(alone, name)[0]), name


def test_every_epoch_and_seed_draws_anew(chunks: Chunks) -> None:
    made = [all_rows(chunks, epoch, seed=seed) for epoch in (0, 1) for seed in (0, 1)]
    for one, other in combinations(made, 2):
        assert (np.sort(one.mlm_positions) != np.sort(other.mlm_positions)).any(1).mean() > 0.6
        assert (one.token_type_ids != other.token_type_ids).any(1).mean() > 0.3
        paired = one.sop_labels != IGNORED
        assert 0.3 < (one.sop_labels != other.sop_labels)[paired].mean() < 0.7


@pytest.fixture(scope="module")
def many(chunks: Chunks) -> list[Batch]:
    return [all_rows(chunks, epoch) for epoch in range(40)]


def chance(successes: int, trials: int, share: float) -> float:
    return float(stats.binomtest(successes, trials, share).pvalue)


def test_masked_random_and_kept_shares(many: list[Batch]) -> None:
    new, old = [], []
    for batch in many:
        asked = batch.mlm_labels != IGNORED
        new.append(np.take_along_axis(batch.input_ids, batch.mlm_positions, 1)[asked])
        old.append(batch.mlm_labels[asked])
    seen, label = np.concatenate(new), np.concatenate(old)
    n, ordinary = len(seen), VOCABULARY - len(SPECIAL)
    assert n > 15_000
    assert chance(int((seen == SPECIAL.mask).sum()), n, 0.8) > UNLIKELY
    assert chance(int((seen == label).sum()), n, 0.1 + 0.1 / ordinary) > UNLIKELY
    random = seen[(seen != SPECIAL.mask) & (seen != label)]
    assert not np.isin(random, SPECIAL).any()
    counts = np.bincount(
        np.searchsorted(np.setdiff1d(np.arange(VOCABULARY), SPECIAL), random) % 59, minlength=59
    )
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_every_place_is_masked_equally_often(many: list[Batch]) -> None:
    full = [row for row in range(200) if many[0].attention_mask[row].sum() == LENGTH]
    places = np.concatenate(
        [batch.mlm_positions[full][batch.mlm_labels[full] != IGNORED] for batch in many]
    )
    counts = np.bincount(places, minlength=LENGTH)
    assert counts[0] == counts[-1] == 0
    assert counts[1:-1].min() > 0.5 * counts[1:-1].mean()


def test_half_of_the_pairs_are_swapped(many: list[Batch]) -> None:
    labels = np.concatenate([batch.sop_labels[batch.sop_labels != IGNORED] for batch in many])
    assert len(labels) > 4000 and chance(int(labels.sum()), len(labels), 0.5) > UNLIKELY


def test_every_sentence_boundary_is_the_split_equally_often(chunks: Chunks) -> None:
    epochs = np.arange(800)
    batch = objectives().batch(chunks, epochs, np.full_like(epochs, 199))
    lengths = [len(segments(batch, row)[0]) for row in range(len(epochs))]
    assert sorted(set(lengths)) == chunks[199].boundaries.tolist() == [3, 10, 16, 20]
    assert stats.chisquare(np.unique(lengths, return_counts=True)[1]).pvalue > UNLIKELY
    swapped = [np.mean(batch.sop_labels[np.array(lengths) == split]) for split in (3, 10, 16, 20)]
    assert all(
        abs(share - 0.5) < 0.15 for share in swapped
    )  # the one draw says nothing of the other


def test_the_label_says_which_segment_stands_first(chunks: Chunks) -> None:
    """Against the tokens themselves: chunk 199 counts up from 100."""
    epochs = np.arange(50)
    batch = objectives().batch(chunks, epochs, np.full_like(epochs, 199))
    first = unmasked(batch)[:, 1]
    assert ((first != 100) == (batch.sop_labels == 1)).all() and set(batch.sop_labels) == {0, 1}


def test_a_chunk_without_an_ordinary_token_asks_for_nothing(tmp_path: Path) -> None:
    chunks = written(tmp_path, np.full(6, SPECIAL.unk), np.array([0, 3]), np.array([[0, 6]]))
    batch = objectives().batch(chunks, np.array([0]), np.array([0]))
    assert (batch.mlm_labels == IGNORED).all() and (batch.mlm_positions == 0).all()
    assert batch.attention_mask.sum() == 9
