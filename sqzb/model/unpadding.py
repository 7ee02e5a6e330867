"""Sequences one after the other in rows, without padding between them.

Linear layers, sums and norms work on rows, so only attention, position embeddings and heads need to
know where a sequence begins.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class SequenceRows(NamedTuple):
    """The place of each sequence in rows without padding.

    Rows behind the last token belong to no sequence: they keep the number of rows the same in each
    micro-batch. Their hidden states are finite, and no head reads them.

    length: tokens of a sequence, at most.
    starts: (batch + 2), the row at which each sequence begins, then the first row of no sequence,
    then the number of rows.
    positions: (rows), the position of each row in its sequence.
    row_of: (batch * length), the row of each position of the padded form; any row for padding.
    padded_of: (rows), the index of each row in the padded form; any index for a row of no sequence.
    """

    length: int
    starts: Tensor
    positions: Tensor
    row_of: Tensor
    padded_of: Tensor

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return len(self.starts) - 2

    def padded(self, x: Tensor) -> Tensor:
        """Map (rows, width) to (batch * length, width); padding has the numbers of some row."""
        return x.index_select(0, self.row_of)

    def unpadded(self, x: Tensor) -> Tensor:
        """Map (batch * length, width) to (rows, width)."""
        return x.index_select(0, self.padded_of)

    def first(self, x: Tensor) -> Tensor:
        """Select the first row of each sequence from (rows, width): (batch, width)."""
        return x.index_select(0, self.starts[:-2])


def sequence_rows(attention_mask: Tensor, rows: int) -> SequenceRows:
    """Return the places of sequences in `rows` rows.

    attention_mask: (batch, length), 1 for the tokens of each sequence, which come first, and 0 for
    padding.
    """
    batch, length = attention_mask.shape
    device = attention_mask.device
    lengths = (attention_mask != 0).sum(1)
    starts = F.pad(lengths.cumsum(0), (1, 1))
    starts[-1] = rows

    row = torch.arange(rows, device=device)
    # A row of no sequence gets the number `batch`.
    sequence = torch.searchsorted(starts[:-1], row, right=True) - 1
    positions = (row - starts[sequence]).clamp(max=length - 1)
    padded_of = (sequence * length + positions).clamp(max=batch * length - 1)
    row_of = starts[:-2, None] + torch.arange(length, device=device)
    return SequenceRows(length, starts, positions, row_of.clamp(max=rows - 1).flatten(), padded_of)
