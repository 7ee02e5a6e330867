"""What lies inside a teacher, as the cache keeps it and batches read it, and the student's losses to it (TinyBERT, Jiao
et al. 2020).

A teacher's tokens may differ from the student's, so of each layer the first token's state counts, which stands for the
whole text in both. The attention counts where the tokens are the same. Both are kept in 16 bits: targets need no more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

STATES, ATTENTION, OFFSETS = "states", "attention", "offsets"


class Asked(NamedTuple):
    """What a teacher is asked for beside its logits."""

    states: bool
    attention: bool
    sizes: list[int]  # the tokens of each training example

    def __bool__(self) -> bool:
        return self.states or self.attention

    def tensors(
        self, states: NDArray[np.float16], weights: Sequence[NDArray[np.float16]]
    ) -> dict[str, NDArray[np.float16] | NDArray[np.int64]]:
        """What the cache keeps of some examples.

        states (examples, layers, width); attention, flat: each example's (tokens, tokens) from offsets[i] up to
        offsets[i + 1].
        """
        found: dict[str, NDArray[np.float16] | NDArray[np.int64]] = {STATES: states} if self.states else {}
        if self.attention:
            found[ATTENTION] = np.concatenate([square.reshape(-1) for square in weights])
            found[OFFSETS] = _offsets([len(square) for square in weights])
        return found

    def misfit(self, tensors: Mapping[str, NDArray[Any]], rows: slice) -> str | None:
        """What is wrong with what was kept of the examples `rows`, if something is. KeyError where a part is absent."""
        kept = [tensors[name] for name, asked in ((STATES, self.states), (ATTENTION, self.attention)) if asked]
        if not all(array.dtype == np.float16 and np.isfinite(array).all() for array in kept):
            return "has states or attention that are not finite numbers of 16 bits"
        if self.states and (tensors[STATES].ndim != 3 or len(tensors[STATES]) != rows.stop - rows.start):
            return f"has states of {tensors[STATES].shape}"
        if self.attention:
            due = _offsets(self.sizes[rows])
            if not np.array_equal(tensors[OFFSETS], due) or tensors[ATTENTION].shape != (due[-1],):
                return "has the attention of other tokens"
        return None


def _offsets(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *(n * n for n in sizes)], dtype=np.int64)


class TeacherStates:
    """What the cache has beside the logits, read from its files for each batch: of a large set it is gigabytes."""

    def __init__(self, files: Sequence[Path], examples_in_a_file: int, asked: Asked) -> None:
        self._files: list[Any] = [safe_open(path, "np") for path in files]  # maps them, and keeps none open
        self._examples_in_a_file, self._asked = examples_in_a_file, asked
        self._shape: list[int] = self._files[0].get_slice(STATES).get_shape()[1:] if asked.states else []

    @property
    def width(self) -> int:
        """Of the states; 0 where none are asked for."""
        return self._shape[1] if self._shape else 0

    def batch(self, rows: NDArray[np.int64], length: int) -> dict[str, Tensor]:
        """Of the examples `rows`, as far as asked for, in fp16: teacher_states (batch, layers, width) and
        teacher_attention (batch, length, length), with zeros for padding and for a row under 0."""
        found = {}
        there = [(place, *divmod(int(row), self._examples_in_a_file)) for place, row in enumerate(rows) if row >= 0]
        if self._asked.states:
            states = np.zeros((len(rows), *self._shape), np.float16)
            for place, file, at in there:
                states[place] = self._files[file].get_slice(STATES)[at : at + 1][0]
            found["teacher_states"] = torch.from_numpy(states)
        if self._asked.attention:
            weights = np.zeros((len(rows), length, length), np.float16)
            for place, file, at in there:
                first, last = self._files[file].get_slice(OFFSETS)[at : at + 2].tolist()
                n = self._asked.sizes[int(rows[place])]
                weights[place, :n, :n] = self._files[file].get_slice(ATTENTION)[first:last].reshape(n, n)
            found["teacher_attention"] = torch.from_numpy(weights)
        return found


def projection(width: int, teachers_width: int, seed: int) -> nn.Linear:
    """From a student's width to a teacher's, to be learnt, the same for all layers and without a bias, as TinyBERT's;
    it starts as a draw of those that turn and cut."""
    layer = nn.Linear(width, teachers_width, bias=False)
    nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    return layer


def mapped(layers: int, teachers_layers: int) -> tuple[list[int], list[int]]:
    """Which layers of a student and of its teacher, from 0, belong together: TinyBERT's uniform mapping, in which the
    n-th of M learns from the teacher's n * N / M-th; of a student with more layers than its teacher, the reverse."""
    pairs = range(1, min(layers, teachers_layers) + 1)
    own, theirs = ([n * of // len(pairs) - 1 for n in pairs] for of in (layers, teachers_layers))
    return own, theirs


def state_errors(states: Tensor, teachers: Tensor, project: nn.Module) -> Tensor:
    """Of each example (batch): the mean squared error, over mapped layers and the teacher's width, of the projected
    states (batch, layers, width) to the teacher's."""
    own, theirs = mapped(states.shape[1], teachers.shape[1])
    projected: Tensor = project(states[:, own])
    difference = projected.to(torch.promote_types(projected.dtype, torch.float32)) - teachers[:, theirs]
    return difference.square().mean((1, 2))


def attention_divergences(weights: Tensor, teachers: Tensor, mask: Tensor) -> Tensor:
    """Of each example (batch): the mean over its tokens of the divergence (Kullback-Leibler, nats) of what they take
    from each token, from what they take in the teacher. Both (batch, length, length); mask (batch, length): 1 for
    tokens. The teacher's are made to add up to 1 again, which 16 bits only nearly do."""
    tiny = torch.finfo(weights.dtype).tiny
    targets = teachers.to(weights.dtype)
    targets = targets / targets.sum(-1, keepdim=True).clamp_min(tiny)
    divergences = F.kl_div(weights.clamp_min(tiny).log(), targets, reduction="none").sum(-1)
    return (divergences * mask).sum(1) / mask.sum(1).clamp_min(1)
