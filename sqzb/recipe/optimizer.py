"""The keys of an optimizer, its learning rate and the averaging of weights."""

from typing import Any, Literal

from pydantic import Field, model_validator

from sqzb.errors import Problem
from sqzb.recipe.values import Section, changed_keys

LAMB, ADAMW, MUON = "lamb", "adamw", "muon"
POLYNOMIAL, WSD, COSINE = "polynomial", "wsd", "cosine"
# The defaults of other optimizers than LAMB, whose defaults are the fields' own. AdamW's are among
# those of RoBERTa and its descendants; Muon's rate, decay and momentum are those of its author.
_OF_ADAMW = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.01}
DEFAULTS: dict[str, dict[str, Any]] = {
    ADAMW: _OF_ADAMW,
    MUON: _OF_ADAMW | {"lr": 0.02},
}
# The keys that only one optimizer, or only some schedules, read.
OF_MUON = ("momentum", "rest_lr")
OF_SCHEDULES = {"decay_power": (POLYNOMIAL, WSD), "cooldown": (WSD,)}


class Optimizer(Section):
    """The optimizer and its rate: linear warmup, then a schedule.

    A key that is not given has the default of the optimizer that `name` chooses.
    """

    name: Literal["lamb", "adamw", "muon"] = Field(
        "lamb", description="muon: for the encoder's matrices, group by group; adamw for the rest"
    )
    lr: float = Field(
        2.5e-3, gt=0, description="peak learning rate; default of adamw: 1e-3, of muon: 0.02"
    )
    rest_lr: float = Field(
        1e-3, gt=0, description="muon: peak rate of adamw, which trains the rest of the model"
    )
    schedule: Literal["polynomial", "wsd", "cosine"] = Field(
        "polynomial",
        description="the rate after the warmup; wsd: constant, then a decay over the cooldown",
    )
    warmup: float = Field(
        0.28, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    cooldown: float = Field(
        0.2, gt=0, le=1, description="wsd: share of the steps with a falling rate, at the end"
    )
    decay_power: float = Field(
        1.0, gt=0, description="exponent of the decay, polynomial or wsd; 1: linear"
    )
    floor: float = Field(
        0.0, ge=0, lt=1, description="rate that the decay ends at, as a share of the peak"
    )
    weight_decay: float = Field(
        0.01, ge=0, description="decay of the weights, but not of biases and norms"
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999),
        strict=False,
        description="decay rates of the two moments, each 0 or more and below 1; default of adamw "
        "and muon: [0.9,0.98]",
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="muon: decay rate of its one moment")
    eps: float = Field(1e-6, gt=0, description="added to the denominator of an update")
    clip_norm: float = Field(
        1.0, gt=0, description="largest global norm of the gradient; longer ones are scaled down"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: Any) -> Any:
        """Fill in the defaults of the named optimizer, so that the saved recipe has all numbers."""
        if not isinstance(values, dict):
            return values
        name = values.get("name")
        return (DEFAULTS.get(name, {}) if isinstance(name, str) else {}) | values

    def problems(self) -> list[Problem]:
        """Return a problem for each beta that is not in [0, 1), and for shares over 1."""
        problems = [
            ("betas", f"{beta} is not in [0, 1)") for beta in self.betas if not 0 <= beta < 1
        ]
        if self.schedule == WSD and self.warmup + self.cooldown > 1:
            reason = f"{self.cooldown:g} and warmup = {self.warmup:g} are more than all steps"
            problems.append(("cooldown", reason))
        return problems

    def unread_keys(self) -> list[Problem]:
        """Return the keys of other optimizers and other schedules, as (key, reason)."""
        unread = []
        for key in changed_keys(self):
            if key in OF_MUON and self.name != MUON:
                unread.append((key, f"has no effect on {self.name}: it is muon's"))
            if self.schedule not in OF_SCHEDULES.get(key, (self.schedule,)):
                unread.append((key, f"has no effect on the schedule {self.schedule}"))
        return unread


class Averaging(Section):
    """The mean of the weights over the last part of a run, which is evaluated too."""

    share: float = Field(
        0.0, ge=0, le=1, description="share of the steps, the last ones, that is averaged; 0: none"
    )
    every: int = Field(1, ge=1, description="steps between two weights that are averaged")
    final: bool = Field(
        False, description="write the mean to final/; false: the weights of the last step"
    )

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect because nothing is averaged."""
        if self.share:
            return []
        return [(key, "has no effect without averaging.share") for key in changed_keys(self)]
