"""Our functions as operators of torch, which torch.compile calls without tracing into them.

torch.library.custom_op does the same, but each call of it costs more, and it loads torch.compile's
libraries, which takes more than a second of every command that does not train.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def operator(name: str) -> Callable[[Callable[..., Any]], torch._ops.OpOverload]:
    """Return a decorator that makes a function the operator torch.ops.sqzb.NAME.

    The function has type hints, changes none of its arguments, and returns new tensors.
    """

    def define(function: Callable[..., Any]) -> torch._ops.OpOverload:
        full = f"sqzb::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", function)
        overload: torch._ops.OpOverload = getattr(torch.ops.sqzb, name).default
        return overload

    return define


def fake(op: torch._ops.OpOverload) -> Callable[[F], F]:
    """Return a decorator for a function that gives the operator's result shapes and types."""
    register: Callable[[F], F] = torch.library.register_fake(op)
    return register
