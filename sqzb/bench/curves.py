"""Losses over the time of training, and the comparison of runs at equal times."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curve(NamedTuple):
    """Held-out losses of a run over the seconds of training, both (n) and n at least 1."""

    seconds: NDArray[np.float64]
    losses: NDArray[np.float64]

    def at(self, share: float) -> float:
        """Return the loss after a share of the run's time, between its neighbours."""
        return float(np.interp(share * self.seconds[-1], self.seconds, self.losses))

    def share_until(self, loss: float) -> float | None:
        """Return the share of the run's time after which its loss is this low; None if it never is.

        Between two evaluations, the loss counts as a straight line.
        """
        reached = np.flatnonzero(self.losses <= loss)
        if not len(reached):
            return None
        n = int(reached[0])
        seconds = float(self.seconds[n])
        if n:
            before, after = self.losses[n - 1], self.losses[n]
            part = float((before - loss) / (before - after))
            seconds = float(self.seconds[n - 1]) + part * (seconds - float(self.seconds[n - 1]))
        return seconds / float(self.seconds[-1])
