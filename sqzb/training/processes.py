"""Functions for the processes of a run together: warn once, and share a flag."""

import torch
from accelerate import Accelerator

from sqzb import console


def warn(accelerator: Accelerator, message: str) -> None:
    """Print a warning in the first process only."""
    if accelerator.is_main_process:
        console.warn(message)


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Return whether the flag is true in at least one process; all processes have to call it."""
    count = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(count, "sum") > 0)
