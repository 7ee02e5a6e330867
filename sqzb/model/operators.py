"""Functions of ours as operators of torch, which torch.compile takes as they are.

As torch.library.custom_op makes them, but a call costs less on its way to the function, and does
not load what torch.compile needs, which would take more than a second of each command that trains
nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def operator(name: str) -> Callable[[Callable[..., Any]], torch._ops.OpOverload]:
    """Decorates a function, with types, that changes none of its arguments and returns tensors of its own: it becomes
    torch.ops.sqzb.NAME."""

    def define(function: Callable[..., Any]) -> torch._ops.OpOverload:
        full = f"sqzb::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", function)
        found: torch._ops.OpOverload = getattr(torch.ops.sqzb, name).default
        return found

    return define


def fake(op: torch._ops.OpOverload) -> Callable[[F], F]:
    """Decorates what gives the operator's results their shapes and types, without numbers."""
    register: Callable[[F], F] = torch.library.register_fake(op)
    return register
