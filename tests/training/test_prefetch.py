"""Micro-batches come for the step that is asked for, also after a jump."""

from typing import Any

import pytest

from sqzb.training.prefetch import prefetching


def test_each_step_is_made_once_and_one_ahead() -> None:
    made: list[int] = []

    def make(step: int) -> list[Any]:
        made.append(step)
        return [{"step": step}]

    with prefetching(make) as prefetcher:
        assert [prefetcher.take(step) for step in (0, 1, 2)] == [
            [{"step": step}] for step in (0, 1, 2)
        ]
        assert prefetcher.take(1) == [{"step": 1}]  # rolled back
        assert prefetcher.take(4) == [{"step": 4}]  # one was left out
    assert made == [0, 1, 2, 3, 1, 2, 4, 5]


def test_an_error_comes_with_its_step() -> None:
    def make(step: int) -> list[Any]:
        if step == 1:
            raise OSError("gone")
        return []

    with prefetching(make) as prefetcher:
        assert prefetcher.take(0) == []
        with pytest.raises(OSError, match="gone"):
            prefetcher.take(1)
