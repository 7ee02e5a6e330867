"""What the processes of a run do as one: warn once, and know what one of them knows."""

import torch
from accelerate import Accelerator

from sqzb import console


def warn(accelerator: Accelerator, message: str) -> None:
    """Show a warning in the first process only."""
    if accelerator.is_main_process:
        console.warn(message)


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Return whether the flag is true in at least one process. All processes have to call this."""
    count = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(count, "sum") > 0)
