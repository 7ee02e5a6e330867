"""The mean of a model's weights over the last steps of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of a model's weights after every `every`-th step, the last of `steps` included.

    first: number of steps before the part of the run that is averaged.
    count: number of weights in the mean. A step that was skipped counts with the weights as they
    were before it.
    """

    def __init__(self, model: nn.Module, steps: int, share: float, every: int) -> None:
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters: list[Tensor] = list(model.parameters())
        self._steps, self._every = steps, every
        self.first = steps - max(1, round(share * steps))
        self._means: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Add the weights to the mean if `step`, the number of finished steps, is one of these."""
        if step <= self.first or (self._steps - step) % self._every:
            return
        self.count += 1
        if self.count == 1:
            self._means = [parameter.clone() for parameter in self._parameters]
        else:
            torch._foreach_lerp_(self._means, self._parameters, 1 / self.count)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the model the mean while the block runs; its own weights if there is no mean yet."""
        own = [parameter.detach().clone() for parameter in self._parameters] if self.count else []
        self._fill(self._means)
        try:
            yield
        finally:
            self._fill(own)

    def _fill(self, tensors: list[Tensor]) -> None:
        if tensors:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, tensors)

    def state(self) -> dict[str, Tensor]:
        """Return the mean by the parameters' names; empty if there is none yet."""
        return dict(zip(self._names, self._means, strict=True)) if self.count else {}

    def restore(self, step: int, count: int, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state after `step` steps; the mean of a shorter run's end is forgotten."""
        self.count = count if step > self.first else 0
        self._means = []
        if self.count:
            for name, parameter in zip(self._names, self._parameters, strict=True):
                self._means.append(tensors[name].to(parameter.device))
