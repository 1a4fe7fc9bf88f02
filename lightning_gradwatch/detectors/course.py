"""How the loss of a run has gone: where it began, where it is now, how much it climbs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

#: Losses whose median is where a run began.
_FIRST = 10
#: Losses whose median is where it is now.
_NOW = 16
#: Losses taken together where swings are measured.
_BLOCK = 4


class LossCourse:
    """The loss, in bounded memory. Everything is relative to where it began.

    A loss that has been negative has no zero to fall towards: of such a run nothing is claimed.

    Args:
        window: Latest losses kept, >= 16.

    Example:
        >>> course = LossCourse()
        >>> for t in range(100):
        ...     course.push(2.0 * 0.98**t)
        >>> f"{course.start:.2f} {course.level:.2f} {course.fallen:.2f}"
        '1.83 0.31 0.83'
    """

    def __init__(self, window: int = 64) -> None:
        self._window = window
        self._first: list[float] = []
        self._recent: list[float] = []
        self.count = 0
        self.signed = False
        #: Lowest level so far.
        self.best = math.inf

    def push(self, loss: float) -> None:
        """Add the loss of a step; NaN and Inf are passed over."""
        if not math.isfinite(loss):
            return
        self.count += 1
        self.signed |= loss < 0
        if len(self._first) < _FIRST:
            self._first.append(loss)
        self._recent = [*self._recent[1 - self._window :], loss]
        if len(self._recent) >= _NOW:
            self.best = min(self.best, self.level)

    @property
    def start(self) -> float:
        """Level at which the loss began; NaN while unknown.

        That of its first steps, or the very first loss, before any step, if the steps raised it.
        """
        return min(self._first[0], median(self._first)) if self._first else math.nan

    @property
    def top(self) -> float:
        """The higher of the two: what the run has come down from; NaN while unknown."""
        return max(self._first[0], median(self._first)) if self._first else math.nan

    @property
    def level(self) -> float:
        """Median of the latest losses; NaN while there are none."""
        return median(self._recent[-_NOW:]) if self._recent else math.nan

    @property
    def fallen(self) -> float:
        """Share of the initial loss that is gone at its best, <= 1; NaN for a loss below zero."""
        if self.signed or not self.start > 0 or math.isinf(self.best):
            return math.nan
        return 1.0 - self.best / self.start

    @property
    def falling(self) -> float:
        """Share by which the later half of the window lies below the earlier; NaN until full."""
        half = self._window // 2
        if self.signed or len(self._recent) < self._window:
            return math.nan
        earlier = median(self._recent[:half])
        return 1.0 - median(self._recent[half:]) / earlier if earlier > 0 else math.nan

    @property
    def climb(self) -> float:
        """Sum of the rises between means of 4 losses in the window, over the start; NaN until full.

        Without the two largest, so that it takes more than one spike.
        """
        losses = self._recent
        if self.signed or len(losses) < self._window or not self.start > 0:
            return math.nan
        means = [sum(losses[i : i + _BLOCK]) / _BLOCK for i in range(0, len(losses), _BLOCK)]
        rises = sorted(max(b - a, 0.0) for a, b in pairwise(means))
        return sum(rises[:-2]) / self.start

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "first": [*self._first],
            "recent": [*self._recent],
            "count": self.count,
            "signed": self.signed,
            "best": self.best,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], window: int = 64) -> LossCourse:
        """Rebuild what `to_dict` returned."""
        course = cls(window)
        course._first = [float(x) for x in data["first"]]
        course._recent = [float(x) for x in data["recent"]]
        course.count, course.signed = int(data["count"]), bool(data["signed"])
        course.best = float(data["best"])
        return course
