"""Executors: this process, several processes of this machine, or a Ray cluster.

The result of the work does not depend on the executor.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread, current_thread, main_thread
from typing import Any

from sqzb.errors import UserError

Tasks = Sequence[tuple[Any, ...]]  # the arguments of each call
Results = Iterator[tuple[int, Any] | None]
Run = Callable[[Callable[..., Any], Tasks], Results]

LOOK_SECONDS = 1.0


@contextmanager
def open_executor(executor: str, workers: int) -> Iterator[Run]:
    """Yield a function that calls another with the arguments of each task, `workers` at a time.

    It yields (task index, result) in completion order, and None once a second while waiting. An
    exception of a call is raised there, and then no further task is started. Worker processes
    start with the first task and serve all later calls.

    Raises:
        UserError: a worker process was killed; Ray is not installed, or could not finish.
    """
    if executor == "ray":
        yield partial(_run_on_ray, workers)
    elif workers == 1:
        yield _run_here
    else:
        # Spawned, not forked: a fork would copy the locks of threads of tokenizers and pyarrow in
        # an unknown state.
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_begin_worker) as pool:
            yield partial(_run_in_processes, pool, workers)


def _run_here(function: Callable[..., Any], tasks: Tasks) -> Results:
    for number, task in enumerate(tasks):
        yield number, function(*task)


# Processes of this machine


def _run_in_processes(
    pool: ProcessPoolExecutor, workers: int, function: Callable[..., Any], tasks: Tasks
) -> Results:
    ahead = enumerate(tasks)
    number_of: dict[Future[Any], int] = {}
    try:
        while True:
            # Submit one task for each idle worker and no more, because the pool starts the
            # tasks in its queue even after an error.
            for number, task in islice(ahead, workers - len(number_of)):
                with _without_interrupts():
                    number_of[pool.submit(function, *task)] = number
            if not number_of:
                return

            finished, _ = wait(number_of, LOOK_SECONDS, FIRST_COMPLETED)
            for future in finished:
                yield number_of.pop(future), future.result()
            if not finished:
                yield None
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process was killed, most likely because the system ran out of memory. "
            "Finished work is kept: run the command again, and if the error comes back, "
            f"with fewer than {workers} --workers."
        ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Postpone Ctrl-C, in this process and in the processes that are started.

    A process that is interrupted while it starts prints a traceback.
    """
    if current_thread() is not main_thread():  # only the main thread receives interrupts
        yield
        return

    postponed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: postponed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if postponed:
            signal.raise_signal(signal.SIGINT)


def _begin_worker() -> None:
    """Prepare a worker process: one thread, and a silent end at Ctrl-C or when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: a pool's workers would wait forever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# Ray


def _run_on_ray(workers: int, function: Callable[..., Any], tasks: Tasks) -> Results:
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor ray needs Ray: pip install 'sqzb[ray]'.") from error

    is_cluster = "RAY_ADDRESS" in os.environ
    ray.init(num_cpus=None if is_cluster else workers, ignore_reinit_error=True)
    call = ray.remote(function)
    number_of = {call.remote(*task): number for number, task in enumerate(tasks)}
    left = list(number_of)
    try:
        while left:
            finished, left = ray.wait(left, timeout=LOOK_SECONDS)
            for reference in finished:
                yield number_of[reference], ray.get(reference)
            if not finished:
                yield None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        advice = "Finished work is kept: run the command again."
        raise UserError(f"Ray could not finish the work ({error}). {advice}") from error
    finally:
        for reference in left:
            ray.cancel(reference)
