"""Commands of sqzb as a user types them, in processes of their own."""

import os
import subprocess
import sys
import time

from sqzb import console


def run_sqzb(*arguments: str, threads: int | None = None) -> float:
    """Show and run a command; the seconds that it took. The script ends with it when it fails.

    threads: of torch; by default what the environment says.
    """
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    console.out.print(f"\n[bold]$ sqzb {' '.join(arguments)}[/]")
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "sqzb", *arguments], env=os.environ | limit)
    if ended.returncode:
        sys.exit(ended.returncode)
    return time.perf_counter() - started
