"""Timed commands of sqzb, as a user types them, each in a process of its own."""

import os
import subprocess
import sys
import time

from sqzb import console


def run_sqzb(*arguments: str, threads: int | None = None) -> float:
    """Show and run a command, and return its duration in seconds; exit if it fails.

    threads: threads of torch; by default those of the environment.
    """
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    console.out.print(f"\n$ sqzb {' '.join(arguments)}", style="bold")
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "sqzb", *arguments], env=os.environ | limit)
    if ended.returncode:
        sys.exit(ended.returncode)
    return time.perf_counter() - started
