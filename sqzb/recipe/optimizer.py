"""The keys of an optimizer and its learning rate: types, defaults, limits and checks."""

from pydantic import Field

from sqzb.errors import Problem
from sqzb.recipe.values import Section


class Optimizer(Section):
    """LAMB and its rate: linear warmup, then polynomial decay to zero."""

    lr: float = Field(2.5e-3, gt=0, description="peak learning rate")
    warmup: float = Field(
        0.28, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    decay_power: float = Field(1.0, gt=0, description="exponent of the decay to zero; 1: linear")
    weight_decay: float = Field(
        0.01, ge=0, description="decay of the weights, but not of biases and norms"
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999),
        strict=False,
        description="decay rates of the two moments, each 0 or more and below 1",
    )
    eps: float = Field(1e-6, gt=0, description="added to the denominator of an update")
    clip_norm: float = Field(
        1.0, gt=0, description="largest global norm of the gradient; longer ones are scaled down"
    )

    def problems(self) -> list[Problem]:
        """Return a problem for each beta that is not in [0, 1)."""
        return [("betas", f"{beta} is not in [0, 1)") for beta in self.betas if not 0 <= beta < 1]
