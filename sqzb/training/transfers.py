"""Copies between the host and a GPU that neither of them waits for."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]

# Entries of 0 and 1, for which a byte is enough.
FLAGS = frozenset(["attention_mask", "token_type_ids"])


def pinned(batch: Inputs, flags_as_bytes: bool = False) -> Inputs:
    """Return a copy in pinned memory, from which a copy to a GPU is asynchronous.

    int64 becomes int32, and flags become int8 if `flags_as_bytes`.
    """
    copies = {}
    for name, tensor in batch.items():
        dtype = torch.int32 if tensor.dtype is torch.int64 else tensor.dtype
        if flags_as_bytes and name in FLAGS:
            dtype = torch.int8
        copies[name] = torch.empty(tensor.shape, dtype=dtype, pin_memory=True)
        copies[name].numpy()[...] = tensor.numpy()
    return copies


class CopiesAhead:
    """Copies of micro-batches on a GPU, made by a stream of their own while a step is computed."""

    def __init__(self, micro_batches: Sequence[Inputs], stream: torch.cuda.Stream) -> None:
        device = stream.device
        with torch.cuda.stream(stream):
            self._copies = [
                {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
                for batch in micro_batches
            ]
            self._copied = torch.cuda.Event()
            self._copied.record()

    def taken(self) -> list[dict[str, Tensor]]:
        """Return the copies for the current stream, which waits for them; the host does not."""
        stream = torch.cuda.current_stream()
        stream.wait_event(self._copied)
        for batch in self._copies:
            for tensor in batch.values():
                # Its memory may be used again only after the work of this stream.
                tensor.record_stream(stream)
        return self._copies


def copied_to_host(values: Tensor) -> Callable[[], list[float]]:
    """Start to copy values from the device; return a function that waits for and returns them."""
    if not values.is_cuda:
        return values.tolist
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> list[float]:
        copied.synchronize()
        numbers: list[float] = copy.tolist()
        return numbers

    return wait
