"""How much too long the first steps of a run are, and how far a rate must come down for that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightning_gradwatch.actions.training import Training

#: What a step may promise to lower the loss by, over the loss (sound runs: up to 1).
_SOUND = 0.3
#: The same, from which a step is far too long by itself.
_FAR = 3.0
#: No single look at one step lowers a rate further than this.
_FLOOR = 0.025


@dataclass
class Stride:
    """The length of the very first step: what it promised to lower the loss by, over the loss.

    Free of scale: neither the loss nor the weights have a unit in it. Above one, the step reached
    beyond where a straight line means anything.

    Attributes:
        length: Of the first step; NaN if it is not known.
        carried: What momentum makes of a step in the end, as a multiple of it.
        loss: Loss at that step; NaN while there was none.
        step: Which step it was, on the x axis of the loggers.
        over: Whether the first step is over, seen or not.
        used: Whether a rate was lowered for it.
    """

    length: float = math.nan
    carried: float = 1.0
    loss: float = math.nan
    step: int = -1
    over: bool = False
    used: bool = False

    def see(self, training: Training) -> None:
        """Look at the first step, whose aftermath comes with the next."""
        sample = training.sample
        if self.over or sample.amp_overflow:
            return
        update = sample.update
        if self.step < 0:
            self.loss, self.step = training.loss, sample.step
            return
        self.over = True
        if update is None or update.step != self.step or not self.loss > 0:
            return
        known = update.descent[np.isfinite(update.descent)]
        if known.size and math.isfinite(self.loss):
            self.length = float(known.sum()) / self.loss
            self.carried = _carried(training)

    def is_far_too_long(self, training: Training) -> bool:
        """Whether the first step by itself was. A collective, see `Training.agree`."""
        return training.agree(self.length >= _FAR)

    def factor(self, factor: float, training: Training) -> float:
        """Return what a rate must be multiplied by so that steps are sound: `factor`, or less.

        Once in a run. A collective: every rank comes to the same.
        """
        lowest = factor
        while not self.used and lowest > _FLOOR:
            if not training.agree(self.length * self.carried * lowest > _SOUND):
                break
            lowest = max(lowest / 2, _FLOOR)
        self.used |= lowest < factor
        return lowest

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stride:
        """Rebuild what `to_dict` returned."""
        return cls(**data)


def _carried(training: Training) -> float:
    """Return how far momentum carries a step in the end; Adam's moments are means, and do not."""
    groups = [] if training.optimizer is None else training.optimizer.param_groups
    momenta = [float(g.get("momentum", 0.0) or 0.0) for g in groups]
    largest = max(momenta, default=0.0)
    return 1 / (1 - largest) if 0 <= largest < 1 else 1.0
