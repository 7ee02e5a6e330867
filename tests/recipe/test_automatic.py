import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sqzb.recipe import FinetuneRecipe
from sqzb.recipe.automatic import epochs_for, length_for, rate_for, resolve

AUTO = FinetuneRecipe(epochs="auto", lr="auto", max_length="auto")
LENGTHS = st.lists(st.integers(2, 2000), min_size=1, max_size=300)


def test_the_model_cards_run_on_mrpc_follows_from_its_size() -> None:
    assert epochs_for(3668) == 10
    assert rate_for(768) == 3e-5


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_more_examples_are_not_repeated_more_often(one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert 20 >= epochs_for(few) >= epochs_for(many) >= 1


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_wider_model_has_no_higher_rate(one: int, other: int) -> None:
    narrow, wide = sorted((one, other))
    assert 1e-3 >= rate_for(narrow) >= rate_for(wide) >= 3e-5


@given(LENGTHS, st.integers(16, 600))
def test_no_more_than_a_twentieth_of_the_examples_is_cut(
    lengths: list[int], positions: int
) -> None:
    length = length_for(np.array(lengths), positions)
    assert length <= min(positions, 256)
    if length in (positions, 256):
        return
    assert length % 8 == 0 and length >= 16
    assert np.mean(np.array(lengths) > length) <= 0.05
    if length > 16:  # and a shorter one would cut more
        assert np.mean(np.array(lengths) > length - 8) > 0.05


def test_given_numbers_stay() -> None:
    lengths = np.array([100, 200])
    given_ = FinetuneRecipe(epochs=7, lr="auto", max_length=24)
    resolved = resolve(given_, lengths, width=768, positions=512)
    assert (resolved.epochs, resolved.lr, resolved.max_length) == (7, 3e-5, 24)
    assert resolve(AUTO, lengths, 768, 512).max_length == 200
    assert resolve(AUTO, lengths, 768, 128).max_length == 128
