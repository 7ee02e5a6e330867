"""Prefetching: a thread makes the next step's micro-batches while a step is computed."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """Makes micro-batches one step ahead, in a thread of its own."""

    def __init__(self, make: Callable[[int], Made], pool: ThreadPoolExecutor) -> None:
        self._make, self._pool = make, pool
        self._next: tuple[int, Future[Made]] | None = None

    def take(self, step: int) -> Made:
        """Return the micro-batches of `step`, and start to make those of the next step."""
        if self._next is None or self._next[0] != step:
            self._submit(step)
        assert self._next is not None
        batches = self._next[1].result()
        self._submit(step + 1)
        return batches

    def _submit(self, step: int) -> None:
        self._next = step, self._pool.submit(self._make, step)


@contextmanager
def prefetching(make: Callable[[int], Made]) -> Iterator[Prefetcher[Made]]:
    """Yield a prefetcher whose thread ends with the block."""
    with ThreadPoolExecutor(1) as pool:
        yield Prefetcher(make, pool)
