"""torchrun, whose processes are started by the fork server: torchrun.py OPTIONS -m MODULE ..."""

from collections.abc import Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

import fork_server


def start(args: Sequence[str], **how: Any) -> fork_server.Popen:
    """Start a process as torchrun does, which asks Python not to buffer its output (-u)."""
    return fork_server.Popen([part for part in args if part != "-u"], **how)


if __name__ == "__main__":
    setattr(subprocess_handler, "Popen", start)  # noqa: B010
    main()
