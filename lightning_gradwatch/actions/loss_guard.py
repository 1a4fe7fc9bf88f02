"""Whether the loss is still in the range that the run has come down to by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

#: Losses whose median is the loss of now, and those whose median is where the run began.
_NOW, _FIRST = 7, 10
#: Steps that tell how much the loss varies, and those that make up its level, if there are as many.
_WINDOW, _LEVEL = 64, 20
#: Smallest standard deviation, in decades; and what makes one of the median of differences.
_FLOOR, _TO_SIGMA = 0.03, 1.4826 / math.sqrt(2)
#: Robust standard deviations, and decades, above the level from which the loss is out of range.
_SIGMAS, _FAR = 4.0, 0.3
#: The same, from which it is not calm any more.
_CALM_SIGMAS, _CALM = 2.0, 0.1
#: Share of what was learnt that must be lost.
_LOST = 0.5
#: How far above its start the loss of a run without a level must be; and from where on no loss is
#: calm, whatever the level.
_RISEN, _SWOLLEN = 3.0, 1.5
#: Share of its lowest value while out of range to which the loss falls if it comes back by itself.
_RECOVERS = 0.95
#: Steps in a row out of range that are no accident, and those after which the level is a new one.
_PATIENCE, _ACCEPT = 8, 150


class LossGuard:
    """Tells when a run has lost, for good, much of what it had learnt.

    More sensitive than the detectors: no gradient has to explode, and no bound is absolute. The
    median of the latest losses must be out of the run's own range (several times its spread, and
    twice its level), at least half of the way back to where the loss began, and stay there without
    coming down. A run that has no level yet must lie at three times its start.

    A loss that has been negative has no zero to fall towards: of such a run nothing is said.

    Example:
        >>> guard = LossGuard()
        >>> for t in range(100):
        ...     guard.push(2.0 * 0.98**t)
        >>> guard.is_calm, guard.is_lost
        (True, False)
        >>> for t in range(20):
        ...     guard.push(1.9)
        >>> guard.is_calm, guard.is_lost
        (False, True)
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent: list[float] = []
        self._calm: list[float] = []  # decades
        self._best = math.inf
        self._signed = False
        self._streak = 0
        self._low = math.inf

    def push(self, loss: float) -> None:
        """Add the loss of a step; NaN and Inf are passed over."""
        if not math.isfinite(loss):
            return
        self._signed |= loss < 0
        if len(self._first) < _FIRST:
            self._first.append(loss)
        self._recent = [*self._recent[1 - _NOW :], loss]
        outside = self._is_outside()
        if not outside or self.now < _RECOVERS * self._low:
            self._streak = 0  # a loss on its way back needs no help
        if outside:
            self._low = self.now if self._streak == 0 else self._low
            self._streak += 1
        if not outside or self._streak > _ACCEPT:
            if loss > 0:
                self._calm = [*self._calm[1 - _WINDOW :], math.log10(loss)]
            if len(self._calm) >= _NOW:
                self._best = min(self._best, self.now)
        if self._streak > _ACCEPT:
            self._best = self.now

    @property
    def now(self) -> float:
        """Median of the latest losses; NaN without any."""
        return median(self._recent) if self._recent else math.nan

    @property
    def start(self) -> float:
        """Level at which the loss began; NaN while unknown."""
        return median(self._first) if self._first else math.nan

    @property
    def level(self) -> float:
        """The run's own level of late, where it began if it has none yet; NaN without any."""
        return self.start if self._is_young else 10 ** median(self._calm[-_LEVEL:])

    @property
    def settled(self) -> float:
        """The run's own level; NaN if it has none yet."""
        return math.nan if self._is_young else self.level

    @property
    def _is_young(self) -> bool:
        return len(self._calm) < _LEVEL

    @property
    def _spread(self) -> float:
        """How much the loss varies from step to step, in decades, whatever its trend."""
        steps = [abs(b - a) for a, b in pairwise(self._calm)]
        return max(_FLOOR, _TO_SIGMA * median(steps))

    @property
    def is_calm(self) -> bool:
        """Whether the loss is not above its own level by more than it usually varies."""
        if self._signed:
            return True
        if self._streak or self.now > _SWOLLEN * max(self.start, self._best):
            return False
        return self._is_young or not self._above(_CALM_SIGMAS, _CALM)

    @property
    def is_lost(self) -> bool:
        """Whether the loss has been out of range for so long that it is no accident."""
        return self._streak >= _PATIENCE

    def _above(self, sigmas: float, decades: float) -> bool:
        if not self.now > 0:
            return False
        gap = math.log10(self.now) - median(self._calm[-_LEVEL:])
        return gap > max(decades, sigmas * self._spread)

    def _is_outside(self) -> bool:
        if self._signed or len(self._recent) < _NOW or not self.start > 0:
            return False
        if self._is_young:
            return self.now > _RISEN * self._first[0]
        learnt = max(self.start - self._best, 0.0)
        return self._above(_SIGMAS, _FAR) and self.now >= self._best + _LOST * learnt

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "first": [*self._first],
            "recent": [*self._recent],
            "calm": [*self._calm],
            "best": self._best,
            "signed": self._signed,
            "streak": self._streak,
            "low": self._low,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LossGuard:
        """Rebuild what `to_dict` returned."""
        guard = cls()
        guard._first = [float(x) for x in data["first"]]
        guard._recent = [float(x) for x in data["recent"]]
        guard._calm = [float(x) for x in data["calm"]]
        guard._best, guard._signed = float(data["best"]), bool(data["signed"])
        guard._streak, guard._low = int(data["streak"]), float(data["low"])
        return guard
