"""Who does the work: this process, several processes of this machine, or a Ray cluster. The result is the same."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread, current_thread, main_thread
from typing import Any

from sqzb.errors import UserError

Results = Iterator[tuple[int, Any] | None]

LOOK_SECONDS = 1.0


def run(executor: str, workers: int, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Results:
    """Call `function` for each of the tasks' arguments: (number of the task, result) as they come, and None about every
    second in which none does. What a call raises is raised here, and no further task is begun."""
    if executor == "ray":
        return _ray(workers, function, tasks)
    return _here(function, tasks) if workers == 1 else _processes(workers, function, tasks)


def _here(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Results:
    for number, task in enumerate(tasks):
        yield number, function(*task)


def _processes(workers: int, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Results:
    # Spawned, not forked: a fork would copy the threads' locks of tokenizers and pyarrow in an unknown state.
    ahead = enumerate(tasks)
    at_work: dict[Future[Any], int] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker) as pool:
        try:
            while True:
                # One for each worker, as the pool begins what lies in its own queue even after an error.
                for number, task in islice(ahead, workers - len(at_work)):
                    with _without_interrupts():
                        at_work[pool.submit(function, *task)] = number
                if not at_work:
                    return
                done, _ = wait(at_work, LOOK_SECONDS, FIRST_COMPLETED)
                yield from ((at_work.pop(future), future.result()) for future in done)
                if not done:
                    yield None
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process was killed, most likely by the system for want of memory. What is finished is kept: "
                f"run the command again, with fewer than {workers} --workers if it happens again."
            ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Put Ctrl-C off, here and in the processes that are begun: Python would tell where it was starting."""
    if current_thread() is not main_thread():  # no interrupt comes to it
        yield
        return
    put_off: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: put_off.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process takes over
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if put_off:
            signal.raise_signal(signal.SIGINT)


def _begin_worker() -> None:
    """One thread for each worker, an end at Ctrl-C without a word, and an end with its parent: a pool's workers would
    wait for a dead one for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ray(workers: int, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Results:
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor ray needs Ray: pip install 'sqzb[ray]'.") from error
    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers, ignore_reinit_error=True)
    call = ray.remote(function)
    numbers = {call.remote(*task): number for number, task in enumerate(tasks)}
    left = list(numbers)
    try:
        while left:
            done, left = ray.wait(left, timeout=LOOK_SECONDS)
            for reference in done:
                yield numbers[reference], ray.get(reference)
            if not done:
                yield None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray could not finish the work ({error}). What is finished is kept: run it again.") from error
    finally:
        for reference in left:
            ray.cancel(reference)
